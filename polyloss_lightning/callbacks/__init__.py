"""Callbacks that schedule epsilon, monitor terms, weight classes, replace losses and write predictions."""

from polyloss_lightning.callbacks.class_weights import ClassWeights
from polyloss_lightning.callbacks.epsilon_scheduler import EpsilonScheduler
from polyloss_lightning.callbacks.loss_override import PolyLossOverride
from polyloss_lightning.callbacks.prediction_writer import PredictionWriter
from polyloss_lightning.callbacks.term_monitor import PolynomialTermMonitor

__all__ = ["ClassWeights", "EpsilonScheduler", "PolyLossOverride", "PolynomialTermMonitor", "PredictionWriter"]
