"""The losses as modules."""

from polyloss_lightning.losses.base import PolyLoss
from polyloss_lightning.losses.binary import Poly1BCEWithLogitsLoss
from polyloss_lightning.losses.cross_entropy import Poly1CrossEntropyLoss
from polyloss_lightning.losses.focal import Poly1FocalLoss
from polyloss_lightning.losses.linear import Poly1LinearCrossEntropyLoss
from polyloss_lightning.losses.sigmoid_focal import Poly1SigmoidFocalLoss

__all__ = [
    "Poly1BCEWithLogitsLoss",
    "Poly1CrossEntropyLoss",
    "Poly1FocalLoss",
    "Poly1LinearCrossEntropyLoss",
    "Poly1SigmoidFocalLoss",
    "PolyLoss",
]
