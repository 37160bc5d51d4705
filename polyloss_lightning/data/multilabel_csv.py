"""A data module for images with several labels each, which are listed in a CSV file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from polyloss_lightning._checks import check_integer
from polyloss_lightning.data.datamodule import EpochRandomSampler, make_loader
from polyloss_lightning.data.image_files import ImageFiles, image_paths
from polyloss_lightning.data.image_parts import check_fractions
from polyloss_lightning.data.image_transforms import Augment
from polyloss_lightning.data.label_table import LabelTable, read_labels
from polyloss_lightning.data.prepared_images import PreparedImages, check_class_names


class MultiLabelCSVDataModule(PreparedImages):
    """Images with several labels each, from CSV files with one row per image.

    The first column of a file is ``file``, the path of an image. Either every other column is a label, with 0 and 1 as
    values (``file,cat,dog``), or the only other column is ``labels``, with names separated by ``|``. The targets are
    tensors of 0 and 1, one number per label, as ``ImageClassifier(task="multilabel")`` takes them.

    A checkpoint contains the names of the labels and how images are prepared. If these differ when it is loaded, other
    names (or another order) are an error, and ``image_size`` and ``grayscale`` are taken from the checkpoint, with a
    warning. It does not contain the split and transforms of your own; a warning reports if these differ.

    Args:
        train: CSV file of the training part, or of all images: then ``val`` is None, and ``seed`` alone determines a
            random split by ``val_fraction`` and ``test_fraction``. It may be None for validation, test and predictions
            from a checkpoint, if ``class_names`` are given.
        val: CSV file of the validation part.
        test: CSV file of the test part.
        root: folder to which the paths in the files refer; None is the folder of each CSV file.
        image_size: side of the square images in pixels.
        grayscale: use one channel instead of three.
        augment: augmentation of training images, as in :class:`~polyloss_lightning.data.ImageFolderDataModule`.
        train_transform: a transform of your own for training; it gets PIL images and replaces the preset.
        transform: the same for validation, test and prediction.
        val_fraction: part of all images for validation, if ``val`` is None.
        test_fraction: part of all images for the test, if ``val`` is None; 0 makes no test part.
        predict_root: folder of images without labels for ``predict``; None predicts on the test part.
        class_names: names of the labels in the order of their indices; None takes them from the file ``train``: the
            columns in their order, or the names under ``labels``, sorted.
        seed: seed of the split and of the order of the samples.
        batch_size: number of images per batch.
        num_workers: number of processes that read images; 0 reads in the main process.

    Raises:
        FileNotFoundError: if a CSV file or an image is missing; with the number of the line.
        ModuleNotFoundError: if torchvision is missing.
        ValueError: if a file is not such a table, with the number of the line, or an argument is out of range.
    """

    def __init__(
        self,
        train: str | os.PathLike[str] | None = None,
        val: str | os.PathLike[str] | None = None,
        test: str | os.PathLike[str] | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        image_size: int = 64,
        grayscale: bool = False,
        augment: Augment = "light",
        train_transform: nn.Module | None = None,
        transform: nn.Module | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        predict_root: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_integer("batch_size", batch_size, "an integer of at least 1", at_least=1)
        self._set_preparation(image_size, grayscale, augment, train_transform, transform)
        given = None if class_names is None else check_class_names(class_names)
        if train is None and given is None:
            raise ValueError(
                "`train` must be a CSV file (it can be left out only for validation, test and predictions from a "
                "checkpoint, with the `class_names` of the checkpoint)"
            )
        tables = _tables({"train": train, "val": val, "test": test}, root, given)
        self.class_names = tables["train"].names if given is None else given
        if train is not None and val is None:
            if test is not None:
                raise ValueError("`test` needs `val`: without `val`, the file `train` is split into all parts")
            tables = _split(tables["train"], val_fraction, test_fraction, seed)
            self._keep_split(seed, val_fraction, test_fraction)
        self.seed, self.batch_size, self.num_workers = seed, batch_size, num_workers
        self._files = {part: _labelled(table) for part, table in tables.items()}
        if predict_root is not None:
            unlabelled = [(path, None) for path in image_paths(Path(predict_root))]
            self._files["predict"] = ImageFiles(unlabelled, self.class_names)
        self._set_transforms()

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Number of training images that have each label."""
        if "train" not in self._files:
            raise AttributeError("there is no training part, because `train` is None")
        targets: Tensor = torch.stack(self._files["train"].targets)  # type: ignore[arg-type]
        return [int(count) for count in targets.sum(0)]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of the training part, in a new order in each epoch."""
        files: Any = self._files["train"]
        return self._loader("train", sampler=EpochRandomSampler(files, self.seed))

    def val_dataloader(self) -> DataLoader[Any]:
        """Return batches of the validation part."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return batches of the test part."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return batches of the images in ``predict_root``, or of the test part."""
        return self._loader("predict" if "predict" in self._files else "test")

    def _loader(self, part: str, sampler: EpochRandomSampler | None = None) -> DataLoader[Any]:
        if part not in self._files:
            raise FileNotFoundError(
                f"the data have no {part} part: pass the file `{part}` (or, if `train` is split, a `{part}_fraction` "
                "above 0)"
            )
        return make_loader(self._files[part], self.batch_size, self.num_workers, sampler)


def _tables(
    paths: dict[str, Any], root: str | os.PathLike[str] | None, names: Sequence[str] | None
) -> dict[str, LabelTable]:
    """Read the file of each part; the labels are ``names``, or those of the training part."""
    tables: dict[str, LabelTable] = {}
    for part, path in paths.items():
        if path is not None:
            folder = Path(path).parent if root is None else Path(root)
            tables[part] = read_labels(Path(path), folder, names)
            names = tables[part].names
    _warn_of_shared_images(tables)
    return tables


def _warn_of_shared_images(tables: dict[str, LabelTable]) -> None:
    seen: dict[str, str] = {}  # the part of each image
    for part, table in tables.items():
        images = {os.path.abspath(path): path for path, _ in table.rows}
        shared = [image for image in images if image in seen]
        if shared:
            rank_zero_warn(
                f"{len(shared)} of the {len(images)} images of `{part}` are also in `{seen[shared[0]]}`, such as "
                f"{images[shared[0]]}: its metrics are not those of new images"
            )
        seen = {**dict.fromkeys(images, part), **seen}


def _labelled(table: LabelTable) -> ImageFiles:
    return ImageFiles([(path, torch.tensor(bits, dtype=torch.float32)) for path, bits in table.rows], table.names)


def _split(table: LabelTable, val_fraction: float, test_fraction: float, seed: int) -> dict[str, LabelTable]:
    """Split the images at random. With several labels per image, there is no exact split by label."""
    check_fractions(val_fraction, test_fraction)
    number = len(table.rows)
    order = torch.randperm(number, generator=torch.Generator().manual_seed(seed)).tolist()
    val, test = max(1, round(val_fraction * number)), max(1, round(test_fraction * number)) if test_fraction else 0
    if number <= val + test:
        raise ValueError(f"there are too few images to split: {number} for {val} of validation and {test} of the test")
    indices = {"val": order[:val], "test": order[val : val + test], "train": order[val + test :]}
    return {
        part: LabelTable(table.names, [table.rows[index] for index in sorted(chosen)])
        for part, chosen in indices.items()
        if chosen
    }
