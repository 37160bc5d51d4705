"""A data module for any classification data set, whose training part can be made long-tailed."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, TensorDataset

from polyloss_lightning._checks import check_integer
from polyloss_lightning.data.long_tail import check_class_indices, check_imbalance, long_tail_counts, long_tail_indices

if TYPE_CHECKING:
    AnyDataset: TypeAlias = Dataset[Any]
else:
    # jsonargparse does not accept `init_args` for a class_path if the annotated type has a parameter.
    AnyDataset = Dataset


class LongTailDataModule(LightningDataModule):
    """Any classification data set, with a long-tailed training part if ``imbalance`` is set.

    Validation and test part are never changed. If training samples are dropped, one line reports how many of each
    class are kept. ``seed`` alone determines which classes are rare and which samples are kept (see
    :func:`~polyloss_lightning.data.long_tail_indices`). The order of the samples depends only on ``seed`` and the
    epoch, so a run that resumes after an epoch uses the same batches as an uninterrupted run.

    Args:
        train: map-style data set of ``(input, ..., class index)``. The class indices are read from its attribute
            ``targets`` or ``labels`` or from its last tensor. If it has none of these, every sample is loaded once.
        val: validation part.
        test: test part.
        predict: part to predict on; None uses the test part.
        imbalance: ratio of the most frequent to the rarest training class, at least 1 (balanced, so that every class
            keeps as many samples as the rarest one has). None keeps all training samples.
        seed: seed of the choice of samples and of their order.
        batch_size: number of samples per batch.
        num_workers: number of processes that load data; 0 loads in the main process.

    Raises:
        ValueError: if ``imbalance`` or ``batch_size`` is below 1; on first use of the training part, if a class has no
            samples.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.randn(40, 3), torch.arange(40) % 4)
        >>> datamodule = LongTailDataModule(data, data, data, imbalance=10.0, seed=1)
        >>> sorted(datamodule.class_counts)
        [1, 2, 5, 10]
        >>> inputs, targets = next(iter(datamodule.train_dataloader()))
        >>> inputs.shape
        torch.Size([18, 3])
    """

    def __init__(
        self,
        train: AnyDataset,
        val: AnyDataset,
        test: AnyDataset,
        predict: AnyDataset | None = None,
        *,
        imbalance: float | None = None,
        seed: int = 0,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if imbalance is not None:
            check_imbalance(imbalance)
        check_integer("batch_size", batch_size, "an integer of at least 1", at_least=1)
        # Not logged, because Lightning raises an error if a module has a different `seed` or `batch_size`.
        objects = ["train", "val", "test", "predict", "train_transform", "transform"]
        self.save_hyperparameters(ignore=objects, logger=False)
        self.train, self.val, self.test = train, val, test
        self.predict = test if predict is None else predict
        self.imbalance = imbalance
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers

    @cached_property
    def train_subset(self) -> Subset[Any]:
        """The samples of the training part that are used."""
        targets = self._train_targets
        if self.imbalance is None:
            return Subset(self.train, range(len(targets)))
        before = torch.bincount(targets, minlength=self.num_classes).tolist()
        long_tail_counts(before, self.imbalance)  # raises an error if a class in `classes` has no samples
        kept = long_tail_indices(targets, self.imbalance, self.seed)
        if len(kept) < len(targets):
            after = torch.bincount(targets[torch.tensor(kept)]).tolist()
            rank_zero_info(
                f"imbalance {self.imbalance:g} keeps {len(kept)} of {len(targets)} training samples: "
                + _by_class(self.class_names, before, after)
            )
        return Subset(self.train, kept)

    @cached_property
    def class_counts(self) -> list[int]:
        """Number of training samples of each class, in the order of the class indices."""
        kept = self._train_targets[torch.as_tensor(self.train_subset.indices)]
        return torch.bincount(kept, minlength=len(self.class_names)).tolist()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the classes, from the attribute ``classes`` of the training data set, else the class indices."""
        names = _stored_classes(self.train)
        return [str(k) for k in range(int(self._train_targets.max()) + 1)] if names is None else names

    @cached_property
    def _train_targets(self) -> Tensor:
        targets = class_indices(self.train)
        check_class_indices(targets)
        return targets

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of the long-tailed training part, in a new order in each epoch."""
        return self._loader(self.train_subset, sampler=EpochRandomSampler(self.train_subset, self.seed))

    def val_dataloader(self) -> DataLoader[Any]:
        """Return batches of the validation part."""
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return batches of the test part."""
        return self._loader(self.test)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return batches of the part to predict on."""
        return self._loader(self.predict)

    def _loader(self, dataset: AnyDataset, sampler: RandomSampler | None = None) -> DataLoader[Any]:
        return make_loader(dataset, self.batch_size, self.num_workers, sampler)


def make_loader(
    dataset: AnyDataset, batch_size: int, num_workers: int, sampler: RandomSampler | None = None
) -> DataLoader[Any]:
    """Return batches of ``dataset``, whose processes (if any) stay alive between epochs."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


class EpochRandomSampler(RandomSampler):
    """A random order that depends only on the seed and the epoch, not on earlier random numbers.

    It derives from ``RandomSampler``, so that Lightning replaces it by a distributed sampler if there are several
    processes. Lightning calls :meth:`set_epoch` before every epoch.
    """

    def __init__(self, data_source: Subset[Any], seed: int) -> None:
        self.seed = seed
        super().__init__(data_source, generator=torch.Generator().manual_seed(seed))

    def set_epoch(self, epoch: int) -> None:
        """Use the order of ``epoch``."""
        self.generator.manual_seed(self.seed + epoch)


def class_indices(dataset: AnyDataset) -> Tensor:
    """Return the class index of every sample, ``[n]``, without loading the inputs if the data set allows it."""
    if isinstance(dataset, Subset):
        return class_indices(dataset.dataset)[torch.as_tensor(dataset.indices)]
    targets = _stored_targets(dataset)
    if targets is None:
        samples: Any = dataset  # torch's Dataset type declares no length, but map-style data sets have one
        targets = torch.tensor([int(samples[index][-1]) for index in range(len(samples))])
    # Some data sets store the class indices as a column, [n, 1].
    return targets.squeeze(1) if targets.dim() == 2 else targets


def _by_class(names: Sequence[str], before: Sequence[int], after: Sequence[int], most: int = 20) -> str:
    parts = [f"{name}: {kept} of {all_}" for name, all_, kept in zip(names, before, after, strict=True)]
    return ", ".join(parts[:most]) + (f", and {len(parts) - most} more classes" if len(parts) > most else "")


def _stored_classes(dataset: AnyDataset) -> list[str] | None:
    if isinstance(dataset, Subset):
        return _stored_classes(dataset.dataset)
    names: Sequence[object] | None = getattr(dataset, "classes", None)
    return None if names is None else [str(name) for name in names]


def _stored_targets(dataset: AnyDataset) -> Tensor | None:
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1]
    stored: Any = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if not _has_one_number_per_sample(stored, dataset):
        return None
    # torchvision's data sets apply this to the stored target.
    transform: Callable[[Any], Any] | None = getattr(dataset, "target_transform", None)
    return torch.as_tensor(stored) if transform is None else torch.tensor([int(transform(target)) for target in stored])


def _has_one_number_per_sample(stored: Any, dataset: Any) -> bool:
    """Return False for anything else that a data set may call its labels, such as the names of its classes."""
    if not hasattr(stored, "__len__") or len(stored) != len(dataset):
        return False
    return not isinstance(next(iter(stored), None), str)
