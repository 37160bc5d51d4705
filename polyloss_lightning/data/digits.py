"""Handwritten digits, which need no download."""

import warnings
from typing import Any

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch import Tensor
from torch.utils.data import TensorDataset

from polyloss_lightning.data.datamodule import LongTailDataModule
from polyloss_lightning.data.long_tail import shuffled_by_class
from polyloss_lightning.data.split import warn_of_another_split


class DigitsDataModule(LongTailDataModule):
    """scikit-learn's 1797 handwritten digits, ``[1, 8, 8]`` in [0, 1], with a long-tailed training part.

    The validation and test parts contain the same number of samples of every class. The training part is made
    long-tailed from the remaining samples. ``seed`` determines the parts and which classes are rare. A warning reports
    if a checkpoint was trained on other parts.

    Args:
        imbalance: ratio of the most frequent to the rarest training class, at least 1 (balanced). None keeps all
            training samples.
        seed: seed of the split, of the choice of samples and of their order.
        batch_size: number of samples per batch.
        val_per_class: number of validation samples of each class.
        test_per_class: number of test samples of each class.
        num_workers: number of processes that load data; the digits are in memory, so 0 is fastest.

    Raises:
        ImportError: if scikit-learn is not installed.
        ValueError: if the validation and test parts need more digits than there are, or ``imbalance`` is below 1.

    Example:
        >>> digits = DigitsDataModule(imbalance=50.0, seed=0)
        >>> max(digits.class_counts), min(digits.class_counts), len(digits.val), len(digits.test)
        (102, 2, 360, 360)
    """

    in_channels = 1

    def __init__(
        self,
        imbalance: float | None = 50.0,
        seed: int = 0,
        batch_size: int = 64,
        val_per_class: int = 36,
        test_per_class: int = 36,
        num_workers: int = 0,
    ) -> None:
        self._split_by = {"seed": seed, "val_per_class": val_per_class, "test_per_class": test_per_class}
        images, targets = _load_digits()
        groups = shuffled_by_class(targets, torch.Generator().manual_seed(seed))
        most = min(len(group) for group in groups) - 1
        if val_per_class < 1 or test_per_class < 1 or val_per_class + test_per_class > most:
            raise ValueError(
                "`val_per_class` and `test_per_class` must be at least 1 and together at most "
                f"{most}, got {val_per_class} and {test_per_class}"
            )
        parts = [group.tensor_split((val_per_class, val_per_class + test_per_class)) for group in groups]
        val, test, train = (
            TensorDataset(images[indices], targets[indices]) for indices in map(torch.cat, zip(*parts, strict=True))
        )
        super().__init__(
            train, val, test, imbalance=imbalance, seed=seed, batch_size=batch_size, num_workers=num_workers
        )
        if num_workers == 0:
            # This warning is wrong for data in memory, which workers only slow down.
            warnings.filterwarnings("ignore", ".*does not have many workers", category=PossibleUserWarning)

    def state_dict(self) -> dict[str, Any]:
        """Return what determines the parts."""
        return {"version": 1, "split": self._split_by}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warn if the checkpoint was trained on another split."""
        warn_of_another_split(state_dict["split"], self._split_by)


def _load_digits() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'DigitsDataModule needs scikit-learn: pip install "polyloss-lightning[demo]"', name="sklearn"
        ) from error
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
    return images, torch.from_numpy(digits.target).long()
