"""The callback that moves epsilon along a schedule."""

import inspect
import math
from collections.abc import Sequence
from typing import Any, get_args

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from typing_extensions import override

from polyloss_lightning._checks import check_choice, check_integer
from polyloss_lightning.callbacks.base import Callback
from polyloss_lightning.callbacks.trainer import progress
from polyloss_lightning.callbacks.trainer.find_losses import Loss, choose, choose_for, find_losses
from polyloss_lightning.callbacks.trainer.log_names import epsilon_values
from polyloss_lightning.callbacks.trainer.progress import Interval, Window, max_epochs, position
from polyloss_lightning.core import polynomial
from polyloss_lightning.losses import PolyLoss
from polyloss_lightning.schedules import Schedule
from polyloss_lightning.schedules.base import Value
from polyloss_lightning.schedules.values import as_value


class EpsilonScheduler(Callback):
    r"""Moves epsilon along a schedule, as a pure function of the run's progress.

    It moves the losses of the module, and the losses that a :class:`~polyloss_lightning.callbacks.PolyLossOverride`
    puts in the place of torch's. The order of the two callbacks does not matter.

    The run consists of ``total`` units (optimizer steps or epochs). The schedule moves within a window of them, from
    unit ``begin`` up to but not including unit ``end``. In unit :math:`s`

    .. math:: t = \frac{s - \text{begin}}{\text{end} - 1 - \text{begin}}, \text{ clamped to } [0, 1],

    so t is 0 in the first unit of the window and exactly 1 in its last unit. (If the window has only one unit, t is 1
    there.) The callback keeps no counter of its own, so a resumed run uses the same epsilons as an uninterrupted one.
    Epsilon does not change within an optimizer step (gradient accumulation). Validation uses the current epsilon, and
    the last epsilon stays set on the loss after ``fit``. A loss that is replaced at the start of an epoch is moved from
    then on, and one that is replaced later, from the next epoch on.

    If the length of the run turns out to be another one (a loader was loaded again and has another length, an epoch was
    cut short), the schedule follows from the next epoch on, and a warning is issued. It is also issued if the run ends
    before the schedule.

    In manual optimization a step is a batch, no matter how many optimizers step in it. ``Trainer(max_steps=...)``
    counts the steps of all optimizers, so the length of the run cannot be derived from it, and ``total`` is needed.

    The callback logs ``poly/epsilon`` every ``log_every_n_steps`` (for Poly-N ``poly/epsilon_1``, ...). If it moves
    only some of the losses, it logs ``poly/{path}/epsilon`` for each of them.

    Args:
        schedule: a function of t in [0, 1] from :mod:`polyloss_lightning.schedules`, or your own.
        interval: the unit of progress, ``"step"`` (optimizer steps) or ``"epoch"``.
        begin: first unit of the window, either a fraction of the run (float) or a number of units (int).
        end: the unit after the last one of the window, in the same form; None is the end of the run. (``1.0`` is the
            end of the run, ``1`` is one unit.)
        loss: path of the loss in the module or name of the override, or several of them; None moves every
            :class:`~polyloss_lightning.losses.PolyLoss` in the module and every override.
        total: length of the run in units. Needed only if it cannot be derived from the Trainer, that is, with
            ``max_epochs=-1`` and no ``max_steps`` (``max_time``), an iterable dataset without a length and no
            ``max_steps``, a ``GradientAccumulationScheduler``, or ``max_steps`` in manual optimization.
        log_epsilon: log epsilon (to the logger, if there is one, and to ``trainer.callback_metrics``).
        prog_bar: show epsilon in the progress bar; it is then logged in every step.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range; at the start of training, if there is no such loss, if two
            schedulers move the same loss, or if the length of the run is needed but unknown.

    Example:
        >>> from polyloss_lightning.schedules import LinearSchedule
        >>> scheduler = EpsilonScheduler(LinearSchedule(init_value=-1.0, end_value=2.0), end=0.8)
        >>> trainer = pl.Trainer(callbacks=[scheduler], logger=False, enable_checkpointing=False)

        In the YAML of a LightningCLI::

            trainer:
              callbacks:
                - class_path: polyloss_lightning.callbacks.EpsilonScheduler
                  init_args:
                    schedule:
                      class_path: polyloss_lightning.schedules.LinearSchedule
                      init_args: {init_value: -1.0, end_value: 2.0}
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        interval: Interval = "step",
        begin: int | float = 0,
        end: int | float | None = None,
        loss: str | Sequence[str] | None = None,
        total: int | None = None,
        log_epsilon: bool = True,
        prog_bar: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(schedule, Schedule):
            raise TypeError(f"`schedule` must be a Schedule, got {schedule!r} ({type(schedule).__name__})")
        check_choice("interval", interval, get_args(Interval))
        if total is not None:
            check_integer("total", total, "an integer of at least 1", at_least=1)
        self.schedule, self.interval, self.total = schedule, interval, total
        self.window = Window(begin, end)
        self.begin, self.end = self.window.begin, self.window.end
        self.loss = (loss,) if isinstance(loss, str) else None if loss is None else tuple(loss)
        if self.loss == ():
            raise ValueError("`loss` must be None (every loss) or at least one path, got none")
        self.log_epsilon = log_epsilon
        self.prog_bar = prog_bar
        self._losses: dict[str, Loss] = {}
        self._several = False  # whether it moves only some of the losses, so that names need the path
        self._length: int | None = None  # of the run; None if it is not needed
        self._expected: int | None = None  # its length if every epoch were like the current one
        self._t = 1.0
        self._epoch_begins = False

    @property
    @override
    def state_key(self) -> str:
        # Schedulers of different losses need separate states. The schedule is not in the key, so it may be changed.
        return self._generate_state_key(loss=self.loss and tuple(sorted(self.loss)))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"version": 2, "interval": self.interval, "length": self._length, "expected": self._expected}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._can_restore(state_dict, version=2) and state_dict["interval"] == self.interval:
            self._length, self._expected = state_dict["length"], state_dict["expected"]

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._find_losses(trainer, pl_module)  # before the sanity check, so that a wrong path fails early

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._find_losses(trainer, pl_module)
        self._find_length(trainer)
        if position(trainer, "step") == 0:
            self._warn_of_other_epsilons()
        unit = position(trainer, self.interval)
        # An epoch that is resumed after its last step has to end with the epsilon of that step.
        self._move(max(unit - 1, 0) if self.interval == "step" else unit)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_begins = True
        if not self.window.needs_total or self.total is not None or trainer.current_epoch >= max_epochs(trainer):
            return
        self._expected = progress.run_length(trainer, self.interval)
        length = progress.run_length(trainer, self.interval, trainer.current_epoch, position(trainer, "step"))
        if length is not None and length != self._length:
            self._change_length(trainer, length, "but was expected to be")

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if self._epoch_begins:  # not in on_train_epoch_start: the module's hook is called later, and may replace a loss
            self._find_losses(trainer, pl_module)
            self._epoch_begins = False
        # In every batch, because a mid-epoch resume calls no epoch-start hook.
        epsilon = self._move(position(trainer, self.interval))
        # Lightning's log() costs more than the rest of the schedule, so call it only if the value is actually used.
        due = self.prog_bar or trainer.fast_dev_run or progress.logs_are_due(trainer)  # type: ignore[attr-defined]
        if not self.log_epsilon or not due or trainer.barebones:
            return
        for path in self._losses if self._several else [""]:
            for name, entry in epsilon_values(path, self._several, polynomial.as_epsilon(epsilon)).items():
                # Pass a CPU tensor: Lightning would copy a float to the device, which synchronizes with it.
                value = torch.tensor(entry, dtype=torch.float64)
                pl_module.log(name, value, self.prog_bar, on_step=True, on_epoch=False, batch_size=1)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        begin, end = self.window.units(self._length)
        if self._t < 1 and begin < end:
            rank_zero_warn(
                f"The run ended before its schedule, which reaches its final value in {self.interval} {end - 1}: the "
                f"last epsilon was {self._value(self._t)} instead of {self._value(1.0)}."
            )

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # A launcher with this method runs `fit` in processes of its own, which end now. Only the state_dict of the
        # module returns to the main process.
        if stage == "fit" and hasattr(trainer.strategy.launcher, "get_extra_results"):
            for path, loss in self._losses.items():
                if isinstance(loss, PolyLoss):
                    loss.register_state_dict_post_hook(_add_epsilon)  # type: ignore[no-untyped-call]
                else:
                    rank_zero_warn(
                        f"The run ended with epsilon {loss.epsilon} for {path or 'the losses'} replaced by "
                        "PolyLossOverride, but in a strategy that spawns or forks processes, the override of the main "
                        f"process keeps epsilon {loss.initial_epsilon}: assign to its `epsilon`"
                    )
        self._losses = {}

    def _find_losses(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every = find_losses(trainer, pl_module)
        self._losses = choose_for(self, EpsilonScheduler, trainer, every, "loss")
        self._several = len(self._losses) < len(choose(every, None, "loss"))
        for loss in self._losses.values():
            if isinstance(loss, PolyLoss):
                polynomial.check_num_terms(loss.num_terms, polynomial.as_epsilon(self.schedule(0.0)))

    def _find_length(self, trainer: pl.Trainer) -> None:
        if not self.window.needs_total:
            return
        length = self.total or progress.run_length(trainer, self.interval)
        if length is None:
            raise ValueError(
                f"cannot tell how many {self.interval}s this run will have "
                f"(max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}, {trainer.num_training_batches} "
                "training batches per epoch, "
                f"automatic_optimization={trainer.lightning_module.automatic_optimization}): pass "
                "EpsilonScheduler(total=...), or give `begin` and `end` as counts"
            )
        old, self._expected = self._expected, length
        if position(trainer, self.interval) == 0 or self._length is None:
            self._length = length
        elif old != length:
            self._change_length(trainer, length, "but the run that it resumes was")
        begin, end = self.window.units(self._length)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not begin < min(end, self._length):
            rank_zero_warn(
                f"The window of the schedule, {self.interval}s {begin} to {end - 1}, is empty or past the end of this "
                f"run of {self._length}: epsilon will not change during the run."
            )
        is_guess = self.interval == "step" and trainer.num_training_batches == math.inf and not self.total
        if is_guess and max_epochs(trainer) < math.inf and trainer.current_epoch == 0:
            rank_zero_warn(
                f"The loader has no length, so the run may end with max_epochs={trainer.max_epochs} before "
                f"max_steps={trainer.max_steps}. The schedule assumes {self._length} steps, and follows the length of "
                "the first epoch once it has ended; EpsilonScheduler(total=...) sets the number of steps."
            )

    def _change_length(self, trainer: pl.Trainer, new: int, but: str) -> None:
        old, self._length = self._length, new
        assert old is not None
        unit, (_, before), (_, after) = position(trainer, self.interval), self.window.units(old), self.window.units(new)
        then, now = (self._value(self.window.t(unit, length)) for length in (old, new))
        rank_zero_warn(
            f"This run is {new} {self.interval}s long, {but} {old}. The schedule follows the new length: epsilon "
            f"continues at {now} instead of {then}, and reaches its final value in {self.interval} {after - 1} instead "
            f"of {before - 1}. EpsilonScheduler(total={old}) keeps the old pace."
        )

    def _warn_of_other_epsilons(self) -> None:
        first = polynomial.as_epsilon(self.schedule(0.0))
        for path, loss in self._losses.items():
            default = getattr(inspect.signature(type(loss)).parameters.get("epsilon"), "default", 1.0)
            if polynomial.as_epsilon(loss.initial_epsilon) not in (first, polynomial.as_epsilon(default)):
                rank_zero_warn(
                    f"{path or type(loss).__name__} was built with epsilon {loss.initial_epsilon}, which has no "
                    f"effect: EpsilonScheduler begins at {self.schedule(0.0)}."
                )

    def _move(self, unit: int) -> Value:
        self._t = self.window.t(unit, self._length)
        epsilon = self._value(self._t)
        for loss in self._losses.values():
            loss.epsilon = epsilon
        return epsilon

    def _value(self, t: float) -> Value:
        return as_value("schedule(t)", self.schedule(t))  # a user's schedule may return integers or NumPy numbers


def _add_epsilon(module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    state_dict[f"{prefix}_polyloss_epsilon"] = torch.tensor(module.epsilon, dtype=torch.float64)
