"""Callbacks that schedule epsilon, monitor the polynomial terms, and replace the losses of a module."""

from polyloss_lightning.callbacks.epsilon_scheduler import EpsilonScheduler
from polyloss_lightning.callbacks.loss_override import PolyLossOverride
from polyloss_lightning.callbacks.term_monitor import PolynomialTermMonitor

__all__ = ["EpsilonScheduler", "PolyLossOverride", "PolynomialTermMonitor"]
