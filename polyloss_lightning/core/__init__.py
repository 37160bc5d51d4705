"""The mathematics: links from logits to log-probabilities, the polynomial, and the loss; needs nothing but torch."""

from polyloss_lightning.core.entries import Entries, Observable, Observation, Observer
from polyloss_lightning.core.loss import Link, Reduction
from polyloss_lightning.core.polynomial import Polynomial
from polyloss_lightning.core.sigmoid import Sigmoid, TargetFormat
from polyloss_lightning.core.softmax import Softmax

__all__ = [
    "Entries",
    "Link",
    "Observable",
    "Observation",
    "Observer",
    "Polynomial",
    "Reduction",
    "Sigmoid",
    "Softmax",
    "TargetFormat",
]
