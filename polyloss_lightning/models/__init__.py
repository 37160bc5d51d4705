"""The image classifier of the examples and configs, and networks for it."""

from polyloss_lightning.models.image_classifier import ImageClassifier
from polyloss_lightning.models.small_cnn import SmallCNN
from polyloss_lightning.models.torchvision_network import TorchvisionNetwork

__all__ = ["ImageClassifier", "SmallCNN", "TorchvisionNetwork"]
