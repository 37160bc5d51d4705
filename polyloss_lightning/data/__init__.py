"""Data modules that make the training part of a classification data set long-tailed."""

from polyloss_lightning.data.datamodule import LongTailDataModule
from polyloss_lightning.data.digits import DigitsDataModule
from polyloss_lightning.data.long_tail import long_tail_counts, long_tail_indices

__all__ = ["DigitsDataModule", "LongTailDataModule", "long_tail_counts", "long_tail_indices"]
