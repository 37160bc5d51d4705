"""A data module that makes the training part of any classification data set long-tailed."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, TensorDataset

from polyloss_lightning.data.long_tail import check_imbalance, long_tail_indices

if TYPE_CHECKING:
    AnyDataset: TypeAlias = Dataset[Any]
else:
    # jsonargparse does not accept `init_args` for a class_path if the annotated type has a parameter.
    AnyDataset = Dataset


class LongTailDataModule(LightningDataModule):
    """Any classification data set with a long-tailed training part. Validation and test part are not changed.

    ``seed`` alone determines which classes are rare and which samples are kept (see
    :func:`~polyloss_lightning.data.long_tail_indices`). The order of the samples depends only on ``seed`` and the
    epoch, so a run that resumes after an epoch uses the same batches as an uninterrupted run.

    Args:
        train: map-style data set of ``(input, ..., class index)``. The class indices are read from its attribute
            ``targets`` or ``labels`` or from its last tensor. If it has none of these, every sample is loaded once.
        val: validation part.
        test: test part.
        predict: part to predict on; None uses the test part.
        imbalance: ratio of the most frequent to the rarest training class, at least 1 (balanced).
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
        imbalance: float = 1.0,
        seed: int = 0,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_imbalance(imbalance)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
        # Not logged, because Lightning raises an error if a module has a different `seed` or `batch_size`.
        self.save_hyperparameters(ignore=["train", "val", "test", "predict"], logger=False)
        self.train, self.val, self.test = train, val, test
        self.predict = test if predict is None else predict
        self.imbalance = imbalance
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers

    @cached_property
    def train_subset(self) -> Subset[Any]:
        """The long-tailed training part."""
        return Subset(self.train, long_tail_indices(self._train_targets, self.imbalance, self.seed))

    @cached_property
    def class_counts(self) -> list[int]:
        """Number of training samples of each class, in the order of the class indices."""
        kept = self._train_targets[torch.tensor(self.train_subset.indices)]
        return torch.bincount(kept).tolist()

    @cached_property
    def _train_targets(self) -> Tensor:
        return class_indices(self.train)

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
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
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


def _stored_targets(dataset: AnyDataset) -> Tensor | None:
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1]
    stored: Tensor | Sequence[int] | None = getattr(dataset, "targets", getattr(dataset, "labels", None))
    # torchvision's data sets apply this to the stored target.
    transform: Callable[[Any], Any] | None = getattr(dataset, "target_transform", None)
    if stored is None or transform is None:
        return None if stored is None else torch.as_tensor(stored)
    return torch.tensor([int(transform(target)) for target in stored])
