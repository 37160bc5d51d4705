"""PolyLoss for PyTorch Lightning: Poly-1 losses, metrics of their polynomial terms, and schedules for epsilon."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from polyloss_lightning.callbacks import EpsilonScheduler, PolyLossOverride, PolynomialTermMonitor
from polyloss_lightning.core import polynomial
from polyloss_lightning.functional import (
    poly1_binary_cross_entropy_with_logits,
    poly1_cross_entropy,
    poly1_focal_loss,
    poly1_linear_cross_entropy,
    poly1_sigmoid_focal_loss,
)
from polyloss_lightning.interception import override_losses
from polyloss_lightning.losses import (
    Poly1BCEWithLogitsLoss,
    Poly1CrossEntropyLoss,
    Poly1FocalLoss,
    Poly1LinearCrossEntropyLoss,
    Poly1SigmoidFocalLoss,
    PolyLoss,
)
from polyloss_lightning.metrics import PolynomialTerms
from polyloss_lightning.provider import LossProvider

__version__ = "0.1.0"  # the only place that contains the version; pyproject.toml reads it

__all__ = [
    "EpsilonScheduler",
    "LossProvider",
    "Poly1BCEWithLogitsLoss",
    "Poly1CrossEntropyLoss",
    "Poly1FocalLoss",
    "Poly1LinearCrossEntropyLoss",
    "Poly1SigmoidFocalLoss",
    "PolyLoss",
    "PolyLossOverride",
    "PolynomialTermMonitor",
    "PolynomialTerms",
    "override_losses",
    "poly1_binary_cross_entropy_with_logits",
    "poly1_cross_entropy",
    "poly1_focal_loss",
    "poly1_linear_cross_entropy",
    "poly1_sigmoid_focal_loss",
    "polynomial",
]

# The public modules. Those that need an extra are imported when they are first used.
_MODULES = [
    "callbacks",
    "core",
    "data",
    "functional",
    "interception",
    "losses",
    "metrics",
    "models",
    "plotting",
    "provider",
    "record",
    "schedules",
    "search",
    "terms",
]

if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> ModuleType:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])
