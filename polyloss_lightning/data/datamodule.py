"""The data module that makes the training part of any classification data set long-tailed."""

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
    # jsonargparse refuses the `init_args` of a class_path whose type has a parameter.
    AnyDataset = Dataset


class LongTailDataModule(LightningDataModule):
    """Any classification data set with a long-tailed training part; validation and test stay as they are.

    Which class is rare, and which samples stay, is decided by ``seed`` alone; see
    :func:`~polyloss_lightning.data.long_tail_indices`. The order of the batches is a function of ``seed`` and the
    epoch, so that a run resumed after an epoch sees the batches of an uninterrupted one.

    Args:
        train: map-style data set of ``(input, ..., class index)``. The class indices are read from its attribute
            ``targets`` or ``labels`` or its last tensor, and only where it has none of these by reading every sample.
        val: validation part.
        test: test part.
        predict: part to predict on; None takes the test part.
        imbalance: ratio of the most frequent to the rarest training class, at least 1 (balanced).
        seed: of the choice of samples and of the order of the batches.
        batch_size: samples a batch.
        num_workers: processes that load data; 0 loads in the main process.

    Raises:
        ValueError: if ``imbalance`` or ``batch_size`` is below 1; on first use of the training part, if a class has no
            sample.

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
        # Not sent to the loggers: Lightning refuses to merge them with a module's own `seed` or `batch_size`.
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
        """Training samples of each class; the position is the class index."""
        kept = self._train_targets[torch.tensor(self.train_subset.indices)]
        return torch.bincount(kept).tolist()

    @cached_property
    def _train_targets(self) -> Tensor:
        return class_indices(self.train)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the long-tailed training part, in a new order each epoch."""
        return self._loader(self.train_subset, sampler=EpochRandomSampler(self.train_subset, self.seed))

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the validation part."""
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of the test part."""
        return self._loader(self.test)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of the part to predict on."""
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
    """A random order that depends on the seed and the epoch alone, whatever was drawn before.

    It is a ``RandomSampler``, so that Lightning replaces it by a distributed one where several processes share the
    data, and Lightning calls :meth:`set_epoch` before every epoch.
    """

    def __init__(self, data_source: Subset[Any], seed: int) -> None:
        self.seed = seed
        super().__init__(data_source, generator=torch.Generator().manual_seed(seed))

    def set_epoch(self, epoch: int) -> None:
        """Go to the order of ``epoch``."""
        self.generator.manual_seed(self.seed + epoch)


def class_indices(dataset: AnyDataset) -> Tensor:
    """The class index of every sample, ``[n]``, read without loading the inputs where the data set allows it."""
    if isinstance(dataset, Subset):
        return class_indices(dataset.dataset)[torch.as_tensor(dataset.indices)]
    targets = _stored_targets(dataset)
    if targets is None:
        samples: Any = dataset  # torch's Dataset does not promise the length that a map-style one has
        targets = torch.tensor([int(samples[index][-1]) for index in range(len(samples))])
    # Some data sets keep a column of class indices, [n, 1].
    return targets.squeeze(1) if targets.dim() == 2 else targets


def _stored_targets(dataset: AnyDataset) -> Tensor | None:
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1]
    stored: Tensor | Sequence[int] | None = getattr(dataset, "targets", getattr(dataset, "labels", None))
    # torchvision's data sets serve the target through this.
    transform: Callable[[Any], Any] | None = getattr(dataset, "target_transform", None)
    if stored is None or transform is None:
        return None if stored is None else torch.as_tensor(stored)
    return torch.tensor([int(transform(target)) for target in stored])
