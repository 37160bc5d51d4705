"""The losses as pure functions."""

from polyloss_lightning.losses.binary import poly1_binary_cross_entropy_with_logits
from polyloss_lightning.losses.cross_entropy import poly1_cross_entropy
from polyloss_lightning.losses.focal import poly1_focal_loss
from polyloss_lightning.losses.linear import poly1_linear_cross_entropy
from polyloss_lightning.losses.sigmoid_focal import poly1_sigmoid_focal_loss

__all__ = [
    "poly1_binary_cross_entropy_with_logits",
    "poly1_cross_entropy",
    "poly1_focal_loss",
    "poly1_linear_cross_entropy",
    "poly1_sigmoid_focal_loss",
]
