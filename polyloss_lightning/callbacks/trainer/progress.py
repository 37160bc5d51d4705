"""Current position and length of a training run, and the corresponding progress t of a schedule."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import lightning.pytorch as pl

from polyloss_lightning._checks import as_number
from polyloss_lightning.callbacks.trainer.log_names import Stage

Interval = Literal["step", "epoch"]


@dataclass
class Window:
    """The part of a run in which a schedule moves. t is 0 up to its first unit, and 1 from its last unit on.

    The bounds are those of :class:`~polyloss_lightning.callbacks.EpsilonScheduler`, and are checked here.

    Example:
        >>> window = Window(begin=2, end=1.0)
        >>> [window.t(unit, total=5) for unit in range(5)]
        [0.0, 0.0, 0.0, 0.5, 1.0]
    """

    begin: int | float = 0
    end: int | float | None = None

    def __post_init__(self) -> None:
        self.begin = _as_bound("begin", self.begin)
        self.end = None if self.end is None else _as_bound("end", self.end)
        if isinstance(self.begin, int) and isinstance(self.end, int) and self.end - self.begin < 2:
            raise ValueError(
                "`end` as a count must be at least `begin` + 2, so that t can go from 0 to 1, got "
                f"begin={self.begin} and end={self.end}; fractions need a decimal point: end=1.0 is the end of the run"
            )
        if isinstance(self.begin, float) and isinstance(self.end, float) and self.end <= self.begin:
            raise ValueError(f"`end` must be greater than `begin`, got begin={self.begin} and end={self.end}")

    @property
    def needs_total(self) -> bool:
        """Whether the length of the run is needed, which is the case unless both bounds are counts."""
        return isinstance(self.begin, float) or not isinstance(self.end, int)

    def units(self, total: int | None) -> tuple[int, int]:
        """Return the first unit and the unit after the last one in a run of ``total`` units."""
        bounds = self.begin, 1.0 if self.end is None else self.end
        assert total is not None or not self.needs_total
        begin, end = (bound if isinstance(bound, int) else round(bound * (total or 0)) for bound in bounds)
        return begin, end

    def t(self, unit: int, total: int | None) -> float:
        """Return t at ``unit`` (counted from 0) in a run of ``total`` units (may be None if not ``needs_total``)."""
        begin, end = self.units(total)
        if unit < begin:
            return 0.0
        return 1.0 if unit >= end - 1 else (unit - begin) / (end - 1 - begin)


def position(trainer: pl.Trainer, interval: Interval) -> int:
    """Return the number of completed optimizer steps (batches in manual optimization) or epochs."""
    if interval == "epoch":
        return trainer.current_epoch
    if trainer.lightning_module.automatic_optimization:
        return trainer.global_step
    # In manual optimization global_step sums the steps of all optimizers, and may not change for several batches.
    # `processed` is incremented before on_train_batch_end, so it is correct in a checkpoint saved in that hook.
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]


def current_stage(trainer: pl.Trainer) -> Stage | None:
    """Return the stage that is running; None for the sanity check."""
    stages: dict[str | None, Stage] = {"train": "train", "validate": "val", "test": "test"}
    return stages.get(trainer.state.stage)


def in_trained_step(trainer: pl.Trainer) -> bool:
    """Return whether the current training batch has been trained on, but not all ``on_train_batch_end`` hooks ran."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return trainer.training and batches.processed > batches.completed


def logs_are_due(trainer: pl.Trainer) -> bool:
    """Return whether the Trainer passes what is logged in the current step on to its loggers."""
    # Without this private name, every step would log, which takes longer and changes nothing.
    return bool(getattr(getattr(trainer, "_logger_connector", None), "should_update_logs", True))


def run_length(trainer: pl.Trainer, interval: Interval, epoch: int = 0, step: int = 0) -> int | None:
    """Return the number of units in the run, or None if it cannot be derived from the Trainer.

    Call this in ``on_train_start`` or later, because the number of batches is unknown before.

    ``epoch`` epochs are complete, with ``step`` optimizer steps in them. The rest of the run is assumed to have epochs
    like the current one, or, if the length of the loader is unknown, like the completed ones.
    """
    epochs = max_epochs(trainer)
    steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if interval == "epoch" and steps == math.inf:
        return _finite(epochs)
    callbacks, fast_dev_run = trainer.callbacks, trainer.fast_dev_run  # type: ignore[attr-defined]
    if any(hasattr(callback, "get_accumulate_grad_batches") for callback in callbacks):
        return None  # Lightning's GradientAccumulationScheduler changes the number of steps per epoch during the run
    if steps < math.inf and not trainer.lightning_module.automatic_optimization and not fast_dev_run:
        return None  # max_steps counts the steps of every optimizer, and a batch may contain several or none
    steps_per_epoch = trainer.num_training_batches
    if steps_per_epoch < math.inf:
        # DeepSpeed goes on accumulating in the next epoch.
        rounded = math.floor if trainer.strategy.handles_gradient_accumulation else math.ceil
        steps_per_epoch = rounded(steps_per_epoch / trainer.accumulate_grad_batches)
    elif epoch and step:
        steps_per_epoch = step / epoch
    if interval == "step":
        left = (epochs - epoch) * steps_per_epoch  # NaN for no more epochs of unknown length
        return _finite(min(steps, step + round(left)) if left < math.inf else steps)
    if steps_per_epoch == math.inf:
        return None
    return _finite(min(epochs, epoch + math.ceil((steps - step) / steps_per_epoch)))


def max_epochs(trainer: pl.Trainer) -> float:
    """Return the number of epochs in which weights are trained, which is infinite if nothing limits it."""
    if trainer.max_epochs in (None, -1):
        return math.inf
    # StochasticWeightAveraging adds an epoch that only updates the statistics of batch normalization.
    ends: list[int] = [callback.swa_end + 1 for callback in trainer.callbacks if hasattr(callback, "swa_end")]  # type: ignore[attr-defined]
    return min([trainer.max_epochs, *ends])


def _finite(length: float) -> int | None:
    return int(length) if 0 < length < math.inf else None


def _as_bound(name: str, bound: object) -> int | float:
    kind, within = "a fraction (float) or a count (int)", "a fraction in [0, 1] (float) or a count of at least 0 (int)"
    is_count = isinstance(bound, Integral)
    number = as_number(name, bound, kind, within, at_least=0, at_most=math.inf if is_count else 1)
    return int(number) if is_count else number
