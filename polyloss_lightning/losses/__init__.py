"""The losses as modules."""

from polyloss_lightning.losses.base import PolyLoss
from polyloss_lightning.losses.cross_entropy import Poly1CrossEntropyLoss

__all__ = ["Poly1CrossEntropyLoss", "PolyLoss"]
