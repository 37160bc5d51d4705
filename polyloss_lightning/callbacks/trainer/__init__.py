"""What several callbacks read from a Trainer, and do with it."""

from polyloss_lightning.callbacks.trainer.log_names import Stage, epsilon_values, prefix
from polyloss_lightning.callbacks.trainer.progress import (
    Interval,
    Window,
    in_trained_step,
    max_epochs,
    position,
    run_length,
)
from polyloss_lightning.callbacks.trainer.step_wrapper import StepCheck, StepContext, unwrap_step, wrap_step

__all__ = [
    "Interval",
    "Stage",
    "StepCheck",
    "StepContext",
    "Window",
    "epsilon_values",
    "in_trained_step",
    "max_epochs",
    "position",
    "prefix",
    "run_length",
    "unwrap_step",
    "wrap_step",
]
