"""A data module for images in folders, one folder for each class."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from polyloss_lightning._checks import as_number
from polyloss_lightning.data.datamodule import LongTailDataModule
from polyloss_lightning.data.image_files import ImageFiles, image_paths
from polyloss_lightning.data.image_parts import check_fractions, image_parts
from polyloss_lightning.data.image_transforms import Augment, mixing_collate
from polyloss_lightning.data.prepared_images import PreparedImages, check_class_names


class ImageFolderDataModule(PreparedImages, LongTailDataModule):
    """Images in folders, one folder for each class, as in torchvision's ``ImageFolder``.

    ``root`` contains either the folders ``train``, ``val`` and ``test`` with one folder per class in each of them, or
    the folders of the classes. In the latter case the images of each class are split by ``val_fraction`` and
    ``test_fraction``, and ``seed`` alone determines the parts. ``test`` may be missing until it is used.

    A checkpoint contains the names of the classes and how images are prepared. If these differ when it is loaded,
    wrong names are an error, and ``image_size`` and ``grayscale`` are taken from the checkpoint, with a warning. It
    does not contain the split and transforms of your own; a warning reports if these differ.

    Args:
        root: folder of the images. It may be None for predictions from a checkpoint, if ``class_names`` are given.
        image_size: side of the square images in pixels.
        grayscale: use one channel instead of three.
        augment: augmentation of training images: ``"none"``, ``"light"`` (random crop of at least 80 percent, mirror),
            ``"randaugment"`` or ``"trivialaugment"``. Use ``"none"`` if a mirrored image has another meaning, such as
            text.
        train_transform: transforms of your own for training, one or a list; they get PIL images and replace the preset.
        transform: the same for validation, test and prediction.
        mixup: alpha of torchvision's ``MixUp`` of training batches; 0 is off.
        cutmix: alpha of torchvision's ``CutMix``; 0 is off. If both are on, each batch uses one of them at random.
        imbalance: drop training samples so that the counts fall exponentially with this ratio; None keeps all.
        val_fraction: part of each class for validation, if ``root`` contains the folders of the classes.
        test_fraction: part of each class for the test; 0 makes no test part.
        predict_root: folder of images without labels for ``predict``; None predicts on the test part.
        class_names: names of the classes in the order of their indices; None takes the names of the folders, sorted.
        seed: seed of the split, of the choice of samples and of their order.
        batch_size: number of images per batch.
        num_workers: number of processes that read images; 0 reads in the main process.

    Raises:
        FileNotFoundError: if a folder is missing or contains no image, or a class is missing in a part.
        ModuleNotFoundError: if torchvision is missing.
        ValueError: if there are fewer than two classes, a class has too few images to split, or an argument is out of
            range; when a batch is read, if an image is unreadable.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        image_size: int = 64,
        grayscale: bool = False,
        augment: Augment = "light",
        train_transform: nn.Module | list[nn.Module] | None = None,
        transform: nn.Module | list[nn.Module] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        imbalance: float | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        predict_root: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        self._set_preparation(image_size, grayscale, augment, train_transform, transform)
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            as_number(name, alpha, within="a finite number of at least 0", at_least=0)
        check_fractions(val_fraction, test_fraction)
        self.mixup, self.cutmix = mixup, cutmix
        names = None if class_names is None else check_class_names(class_names)
        if root is not None:
            names, parts, is_split = image_parts(Path(root), names, val_fraction, test_fraction, seed)
            if is_split:
                self._keep_split(seed, val_fraction, test_fraction)
        elif predict_root is not None and names is not None:
            parts = {}
        else:
            raise ValueError(
                "`root` must be the folder of the images (it can be left out only for predictions from a checkpoint, "
                "with `predict_root` and the `class_names` of the checkpoint)"
            )
        self._files = {part: ImageFiles(samples, names) for part, samples in parts.items()}
        if predict_root is not None:
            self._files["predict"] = ImageFiles([(path, None) for path in image_paths(Path(predict_root))], names)
        nothing = ImageFiles([], names)
        train, val, test = (self._files.get(part, nothing) for part in ("train", "val", "test"))
        super().__init__(
            train, val, test, self._files.get("predict"),
            imbalance=imbalance, seed=seed, batch_size=batch_size, num_workers=num_workers,
        )  # fmt: skip
        for name in ("root", "predict_root"):  # a checkpoint with a Path in it cannot be loaded with weights_only=True
            if isinstance(self.hparams.get(name), os.PathLike):
                self.hparams[name] = os.fspath(self.hparams[name])
        self.root = root
        self._set_transforms()

    @cached_property
    def class_counts(self) -> list[int]:
        """Number of training images of each class that are used."""
        if "train" not in self._files:
            raise AttributeError("there is no training part, because `root` is None")
        return super().class_counts

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of the training part, in a new order in each epoch."""
        self._check_part("train")
        loader = super().train_dataloader()
        loader.collate_fn = mixing_collate(self.mixup, self.cutmix, self.num_classes) or loader.collate_fn
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Return batches of the validation part."""
        self._check_part("val")
        return super().val_dataloader()

    def test_dataloader(self) -> DataLoader[Any]:
        """Return batches of the test part."""
        self._check_part("test")
        return super().test_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return batches of the images in ``predict_root``, or of the test part."""
        if "predict" not in self._files:
            self._check_part("test")
        return super().predict_dataloader()

    def _check_part(self, part: str) -> None:
        if part not in self._files:
            where = "`root` is None" if self.root is None else f"there is no folder {Path(self.root) / part}"
            raise FileNotFoundError(f"the data have no {part} part: {where}, or `{part}_fraction` is 0")
