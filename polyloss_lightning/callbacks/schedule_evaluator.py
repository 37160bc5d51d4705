"""Evaluating a schedule at the current progress of a training run."""

from dataclasses import dataclass, field
from typing import Any, get_args

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn

from polyloss_lightning.callbacks.progress import Interval, Window, position, run_length
from polyloss_lightning.checks import check_choice
from polyloss_lightning.metrics import check_count
from polyloss_lightning.schedules import Schedule
from polyloss_lightning.schedules.base import Value
from polyloss_lightning.schedules.values import as_value


@dataclass
class ScheduleEvaluator:
    """Evaluates a schedule at the current position of a training run.

    The position is read from the Trainer's own counters, so nothing is counted here.

    Args:
        schedule: a function of t in [0, 1].
        interval: the unit of progress, ``"step"`` (optimizer steps) or ``"epoch"``.
        begin: first unit of the window, either a fraction of the run (float) or a number of units (int).
        end: the unit after the last one of the window, in the same form; None is the end of the run.
        total: length of the run in units; needed only if it cannot be derived from the Trainer.

    Attributes:
        length: length of the run in units; None until :meth:`find_length` has set it.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range.
    """

    schedule: Schedule
    interval: Interval
    begin: int | float
    end: int | float | None
    total: int | None
    length: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        _check(self.schedule, self.interval, self.total)
        self.window = Window(self.begin, self.end)

    def find_length(self, trainer: pl.Trainer, owner: str) -> None:
        """Determine the length of the run. Call this in ``on_train_start`` or later.

        Args:
            trainer: the Trainer of the run.
            owner: class name of the callback, used in messages.

        Raises:
            ValueError: if the length is needed but cannot be determined.
        """
        if not self.window.needs_total:
            return
        length = self.total or run_length(trainer, self.interval)
        if length is None:
            raise ValueError(
                f"cannot tell how many {self.interval}s this run will have "
                f"(max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}, {trainer.num_training_batches} "
                "training batches per epoch, "
                f"automatic_optimization={trainer.lightning_module.automatic_optimization}): pass "
                f"{owner}(total=...), or give `begin` and `end` as counts"
            )
        old, self.length = self.length, length
        unit = position(trainer, self.interval)
        begin, end = self.window.units(length)
        if old is not None and old != length and unit > 0:
            rank_zero_warn(
                f"This run is {length} {self.interval}s long, but the run that it resumes was {old}. The schedule "
                f"follows the new length: epsilon continues at {self._value(unit, length)} instead of "
                f"{self._value(unit, old)}, and reaches its final value in {self.interval} {end - 1} instead of "
                f"{self.window.units(old)[1] - 1}. {owner}(total={old}) keeps the old pace."
            )
        moves = begin < min(end, length)
        if not moves and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"The window of the schedule, {self.interval}s {begin} to {end - 1}, is empty or past the end of this "
                f"run of {length}: epsilon will not change during the run."
            )

    def value(self, trainer: pl.Trainer) -> Value:
        """Return the value of the schedule at the current position of the run."""
        return self._value(position(trainer, self.interval), self.length)

    def _value(self, unit: int, length: int | None) -> Value:
        # A user-defined schedule may return integers or NumPy numbers.
        return as_value("schedule(t)", self.schedule(self.window.t(unit, length)))

    def state_dict(self) -> dict[str, Any]:
        """Return the length of the run, so that a resumed run can warn if its own length differs."""
        return {"version": 1, "interval": self.interval, "length": self.length}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state returned by :meth:`state_dict`."""
        self.length = state_dict["length"] if state_dict["interval"] == self.interval else None


def log_epsilon(trainer: pl.Trainer, name: str, epsilon: Value, *, prog_bar: bool = False) -> None:
    """Log ``epsilon`` for the current step; for Poly-N as ``{name}_1``, ``{name}_2``, ..."""
    # Lightning's log() costs more than the rest of the schedule, so call it only if the value is actually used.
    due = prog_bar or trainer.fast_dev_run or trainer._logger_connector.should_update_logs  # type: ignore[attr-defined]
    if not due or trainer.barebones:
        return
    entries = {"": epsilon} if isinstance(epsilon, float) else {f"_{j}": e for j, e in enumerate(epsilon, start=1)}
    for suffix, entry in entries.items():
        # Pass a CPU tensor: Lightning would copy a float to the device, which synchronizes with it.
        value = torch.tensor(entry, dtype=torch.float64)
        trainer.lightning_module.log(name + suffix, value, prog_bar, on_step=True, on_epoch=False, batch_size=1)


def _check(schedule: object, interval: object, total: object) -> None:
    if not isinstance(schedule, Schedule):
        raise TypeError(f"`schedule` must be a Schedule, got {schedule!r} ({type(schedule).__name__})")
    check_choice("interval", interval, get_args(Interval))
    if total is not None:
        check_count("total", total)
