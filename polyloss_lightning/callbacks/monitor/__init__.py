"""What serves the term monitor alone."""

from polyloss_lightning.callbacks.monitor.class_values import find_num_classes, given_counts
from polyloss_lightning.callbacks.monitor.observation_collector import ObservationCollector
from polyloss_lightning.callbacks.monitor.observed_losses import observed_losses
from polyloss_lightning.callbacks.monitor.sums import PassSums
from polyloss_lightning.callbacks.monitor.term_log import TermLog

__all__ = ["ObservationCollector", "PassSums", "TermLog", "find_num_classes", "given_counts", "observed_losses"]
