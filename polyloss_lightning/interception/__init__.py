"""Replacing torch's own loss functions inside of a ``with`` block, for plain training loops and Fabric."""

from polyloss_lightning.interception.call_sites import CallSite
from polyloss_lightning.interception.exponentials import LossOverrideError
from polyloss_lightning.interception.functions import LossName
from polyloss_lightning.interception.mode import Elementwise
from polyloss_lightning.interception.override import LossOverride, OnNothing, ReplacedLoss, override_losses

__all__ = [
    "CallSite",
    "Elementwise",
    "LossName",
    "LossOverride",
    "LossOverrideError",
    "OnNothing",
    "ReplacedLoss",
    "override_losses",
]
