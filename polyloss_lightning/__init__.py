"""PolyLoss for PyTorch Lightning: Poly-1 losses, their terms as metrics, and epsilon on a schedule."""

from polyloss_lightning.functional import poly1_cross_entropy
from polyloss_lightning.losses import Poly1CrossEntropyLoss, PolyLoss
from polyloss_lightning.provider import LossProvider

__all__ = [
    "LossProvider",
    "Poly1CrossEntropyLoss",
    "PolyLoss",
    "poly1_cross_entropy",
]
