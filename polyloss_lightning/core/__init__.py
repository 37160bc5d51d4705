"""The mathematics: links from logits to log-probabilities, the polynomial, and the loss; needs nothing but torch."""

from polyloss_lightning.core.entries import Entries, Observation, Observer
from polyloss_lightning.core.loss import Link, Reduction
from polyloss_lightning.core.polynomial import Polynomial, as_polynomial
from polyloss_lightning.core.sigmoid import Sigmoid, TargetFormat
from polyloss_lightning.core.softmax import Softmax

__all__ = [
    "Entries",
    "Link",
    "Observation",
    "Observer",
    "Polynomial",
    "Reduction",
    "Sigmoid",
    "Softmax",
    "TargetFormat",
    "as_polynomial",
]
