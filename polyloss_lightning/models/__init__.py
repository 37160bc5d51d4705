"""The image classifier of the examples and configs, and a small network for it."""

from polyloss_lightning.models.image_classifier import ImageClassifier
from polyloss_lightning.models.small_cnn import SmallCNN

__all__ = ["ImageClassifier", "SmallCNN"]
