"""A schedule, and the progress of a run as its t."""

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, get_args

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn

from polyloss_lightning.callbacks.progress import Interval, Window, position, run_length
from polyloss_lightning.schedules import Schedule
from polyloss_lightning.schedules.base import Value
from polyloss_lightning.schedules.values import as_value


@dataclass
class ScheduleClock:
    """Says what value a schedule has now: a pure function of the Trainer's own counters.

    Args:
        schedule: a function of t in [0, 1].
        interval: what is counted, ``"step"`` (optimizer steps) or ``"epoch"``.
        begin: first unit of the window: a float is a fraction of the run, an int a count of units.
        end: the unit after the window, likewise; None is the end of the run.
        total: length of the run in units, where the Trainer cannot tell it.

    Attributes:
        length: length of the run in units, once found.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an option is out of its range.
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
        """Find out how long the run is, from on_train_start on; ``owner`` is whom a message names.

        Raises:
            ValueError: if the length is needed and unknown.
        """
        if not self.window.needs_total:
            return
        length = self.total or run_length(trainer, self.interval)
        if length is None:
            raise ValueError(
                f"the Trainer cannot tell how many {self.interval}s this run will have "
                f"(max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}, {trainer.num_training_batches} "
                "training batches an epoch, "
                f"automatic_optimization={trainer.lightning_module.automatic_optimization}): give "
                f"{owner}(total=...), or `begin` and `end` as counts"
            )
        old, self.length = self.length, length
        unit = position(trainer, self.interval)
        begin, end = self.window.units(length)
        if old is not None and old != length and unit > 0:
            rank_zero_warn(
                f"This run is {length} {self.interval}s long, and the one that it goes on from was {old}. The schedule "
                f"follows the new length: epsilon goes on at {self._value(unit, length)} where it would have been "
                f"{self._value(unit, old)}, and reaches its end in {self.interval} {end - 1} instead of "
                f"{self.window.units(old)[1] - 1}. {owner}(total={old}) keeps the old pace."
            )
        moves = begin < min(end, length)
        if not moves and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"The window of the schedule, {self.interval}s {begin} to {end - 1}, is empty or past the end of this "
                f"run of {length}: epsilon does not move along it."
            )

    def value(self, trainer: pl.Trainer) -> Value:
        """The value of the schedule now."""
        return self._value(position(trainer, self.interval), self.length)

    def _value(self, unit: int, length: int | None) -> Value:
        # A schedule of the user's own may give what YAML and NumPy have for numbers.
        return as_value("schedule(t)", self.schedule(self.window.t(unit, length)))

    def state_dict(self) -> dict[str, Any]:
        """The length of the run, so that a run that goes on from this one can say that it is another."""
        return {"version": 1, "interval": self.interval, "length": self.length}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.length = state_dict["length"] if state_dict["interval"] == self.interval else None


def log_epsilon(trainer: pl.Trainer, name: str, epsilon: Value, *, prog_bar: bool = False) -> None:
    """Log ``epsilon`` for the running step; for Poly-N as ``{name}_1``, ``{name}_2``, ..."""
    # Lightning's own log costs more than all the rest of a schedule: it is called where its value goes somewhere.
    due = prog_bar or trainer.fast_dev_run or trainer._logger_connector.should_update_logs  # type: ignore[attr-defined]
    if not due or trainer.barebones:
        return
    entries = {"": epsilon} if isinstance(epsilon, float) else {f"_{j}": e for j, e in enumerate(epsilon, start=1)}
    for suffix, entry in entries.items():
        # A tensor on the CPU stays there: Lightning copies a float to the device, and waits for it.
        value = torch.tensor(entry, dtype=torch.float64)
        trainer.lightning_module.log(name + suffix, value, prog_bar, on_step=True, on_epoch=False, batch_size=1)


def _check(schedule: object, interval: object, total: object) -> None:
    if not isinstance(schedule, Schedule):
        raise TypeError(f"`schedule` must be a Schedule, got {schedule!r} ({type(schedule).__name__})")
    if interval not in get_args(Interval):
        raise ValueError(f"`interval` must be one of {get_args(Interval)}, got {interval!r}")
    if total is not None and (isinstance(total, bool) or not isinstance(total, Integral) or total < 1):
        raise ValueError(f"`total` must be None or an integer of at least 1, got {total!r}")
