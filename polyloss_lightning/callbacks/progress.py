"""Where a run stands, how long it is, and which t that is for a schedule."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

import lightning.pytorch as pl

Interval = Literal["step", "epoch"]


@dataclass(frozen=True)
class Window:
    """The part of a run in which a schedule moves: t is 0 before and at its first unit, 1 from its last unit on.

    Args:
        begin: first unit; a float is a fraction of the run, an int a count of units.
        end: the unit after the last one, likewise; None is the end of the run.

    Raises:
        TypeError: if a bound is not a number.
        ValueError: if a fraction is outside of [0, 1], a count is negative, or nothing lies between the two.

    Example:
        >>> window = Window(begin=2, end=1.0)
        >>> [window.t(unit, total=5) for unit in range(5)]
        [0.0, 0.0, 0.0, 0.5, 1.0]
    """

    begin: int | float = 0
    end: int | float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "begin", _as_bound("begin", self.begin))
        if self.end is None:
            return
        object.__setattr__(self, "end", _as_bound("end", self.end))
        counts = isinstance(self.begin, int) and isinstance(self.end, int)
        if counts and self.end - self.begin < 2:
            raise ValueError(
                f"`end` as a count must be at least `begin` + 2, or t has no room to move, got begin={self.begin} and "
                f"end={self.end}; a fraction is written with a point: end=1.0 is the end of the run"
            )
        if isinstance(self.begin, float) and isinstance(self.end, float) and self.end <= self.begin:
            raise ValueError(f"`end` must be greater than `begin`, got begin={self.begin} and end={self.end}")

    @property
    def needs_total(self) -> bool:
        """Whether the length of the run matters, that is, unless both bounds are counts."""
        return isinstance(self.begin, float) or not isinstance(self.end, int)

    def units(self, total: int | None) -> tuple[int, int]:
        """First unit and the unit after the last one, in a run of ``total`` units."""
        return _count(self.begin, total), _count(1.0 if self.end is None else self.end, total)

    def t(self, unit: int, total: int | None) -> float:
        """Progress at ``unit`` (counted from 0) in a run of ``total`` units (None only if it is not needed)."""
        begin, end = self.units(total)
        if unit < begin:
            return 0.0
        return 1.0 if unit >= end - 1 else (unit - begin) / (end - 1 - begin)


def position(trainer: pl.Trainer, interval: Interval) -> int:
    """Index of the running unit: completed optimizer steps (batches in manual optimization), or epochs."""
    if interval == "epoch":
        return trainer.current_epoch
    if trainer.lightning_module.automatic_optimization:
        return trainer.global_step
    # In manual optimization global_step adds up the steps of all optimizers, and may stand still for batches.
    # `processed` moves before on_train_batch_end, so it is right in a checkpoint saved there.
    batches: int = trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
    return batches


def run_length(trainer: pl.Trainer, interval: Interval) -> int | None:
    """Number of units that the run will have, or None where the Trainer cannot tell.

    To be asked from on_train_start on: before, the number of batches is not known.
    """
    epochs = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs
    steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if interval == "epoch" and steps == math.inf:
        return _finite(epochs)
    callbacks, fast_dev_run = trainer.callbacks, trainer.fast_dev_run  # type: ignore[attr-defined]
    if any(hasattr(callback, "get_accumulate_grad_batches") for callback in callbacks):
        return None  # Lightning's GradientAccumulationScheduler: the steps of an epoch change under way
    if steps < math.inf and not trainer.lightning_module.automatic_optimization and not fast_dev_run:
        return None  # max_steps counts the steps of every optimizer, and a batch may take several or none
    steps_per_epoch = trainer.num_training_batches
    if steps_per_epoch < math.inf:
        steps_per_epoch = math.ceil(steps_per_epoch / trainer.accumulate_grad_batches)
    if interval == "step":
        return _finite(min(steps, epochs * steps_per_epoch))
    return _finite(min(epochs, math.ceil(steps / steps_per_epoch))) if steps_per_epoch < math.inf else None


def _finite(length: float) -> int | None:
    return int(length) if 0 < length < math.inf else None


def _as_bound(name: str, bound: object) -> int | float:
    if isinstance(bound, bool) or not isinstance(bound, Real):
        raise TypeError(f"`{name}` must be a fraction (float) or a count (int), got {bound!r} ({type(bound).__name__})")
    if isinstance(bound, Integral):
        if bound < 0:
            raise ValueError(f"`{name}` as a count must be at least 0, got {bound!r}")
        return int(bound)
    fraction = float(bound)
    if not 0 <= fraction <= 1:
        raise ValueError(f"`{name}` as a fraction of the run must be in [0, 1], got {bound!r}; a count is an int")
    return fraction


def _count(bound: int | float, total: int | None) -> int:
    if isinstance(bound, int):
        return bound
    assert total is not None
    return round(bound * total)
