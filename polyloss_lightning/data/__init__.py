"""Data modules for image classification, whose training part can be made long-tailed."""

from polyloss_lightning.data.datamodule import LongTailDataModule
from polyloss_lightning.data.digits import DigitsDataModule
from polyloss_lightning.data.image_folder import ImageFolderDataModule
from polyloss_lightning.data.long_tail import long_tail_counts, long_tail_indices
from polyloss_lightning.data.multilabel_csv import MultiLabelCSVDataModule

__all__ = [
    "DigitsDataModule",
    "ImageFolderDataModule",
    "LongTailDataModule",
    "MultiLabelCSVDataModule",
    "long_tail_counts",
    "long_tail_indices",
]
