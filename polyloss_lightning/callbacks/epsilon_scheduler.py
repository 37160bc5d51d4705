"""Epsilon on a schedule."""

from collections.abc import Sequence
from typing import Any, cast

import lightning.pytorch as pl
from typing_extensions import override

from polyloss_lightning.callbacks.namespaces import Callback
from polyloss_lightning.callbacks.progress import Interval
from polyloss_lightning.callbacks.schedule_clock import ScheduleClock, log_epsilon
from polyloss_lightning.core import polynomial
from polyloss_lightning.interception.scope import without_wrappers
from polyloss_lightning.losses import PolyLoss
from polyloss_lightning.schedules import Schedule
from polyloss_lightning.schedules.base import Value


class EpsilonScheduler(Callback):
    r"""Moves the epsilon of the losses of a module along a schedule, as a pure function of the run's progress.

    With ``total`` units in the run (optimizer steps, or epochs), those from ``begin`` up to, not including, ``end``
    are the window of the schedule. In unit :math:`s`

    .. math:: t = \frac{s - \text{begin}}{\text{end} - 1 - \text{begin}}, \text{ held in } [0, 1],

    so that t is 0 in the first unit of the window and exactly 1 in its last; in a window of one unit it is 1.
    Nothing is counted here and nothing accumulates: a resumed run has the epsilons of an uninterrupted one. Within
    one optimizer step epsilon stands still (gradient accumulation), validation sees the epsilon of the moment, and
    after ``fit`` the last one stays on the loss.

    In manual optimization a step is a batch, however many optimizers step in it: there ``Trainer(max_steps=...)``,
    which counts the steps of all optimizers, tells no length, and ``total`` is needed.

    Logs ``poly/epsilon`` every ``log_every_n_steps`` (for Poly-N ``poly/epsilon_1``, ...); a scheduler that moves
    only some of the module's losses logs ``poly/{path}/epsilon`` for each.

    Args:
        schedule: a function of t in [0, 1] from :mod:`polyloss_lightning.schedules`, or your own.
        interval: what is counted, ``"step"`` (optimizer steps) or ``"epoch"``.
        begin: first unit of the window: a float is a fraction of the run, an int a count of units.
        end: the unit after the window, likewise; None is the end of the run. (``1.0`` is the end, ``1`` one unit.)
        loss: path of the loss in the module, or several; None moves every
            :class:`~polyloss_lightning.losses.PolyLoss` in it.
        total: length of the run in units, where the Trainer cannot tell it: with ``max_epochs=-1`` and no
            ``max_steps`` (``max_time``), an iterable dataset, a ``GradientAccumulationScheduler``.
        log_epsilon: log it (to the logger, if there is one, and to ``trainer.callback_metrics``).
        prog_bar: show epsilon in the progress bar, for which it is logged in every step.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an option is out of its range; at the start of training, if the module has no such loss, two
            schedulers move one loss, or the length of the run is needed and unknown.

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
        self._clock = ScheduleClock(schedule, interval, begin, end, total)
        self.schedule, self.interval, self.window, self.total = schedule, interval, self._clock.window, total
        self.loss = (loss,) if isinstance(loss, str) else None if loss is None else tuple(loss)
        if self.loss == ():
            raise ValueError("`loss` must be None (every loss of the module) or at least one path, got none")
        self.log_epsilon = log_epsilon
        self.prog_bar = prog_bar
        self._paths: tuple[str, ...] = ()
        self._names: tuple[str, ...] = ()

    @property
    @override
    def state_key(self) -> str:
        # Schedulers of different losses must not share a state; one with a changed schedule finds its state again.
        return self._generate_state_key(loss=self.loss and tuple(sorted(self.loss)))

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._clock.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._clock.load_state_dict(state_dict)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._find_losses(trainer, pl_module)  # before the sanity check, so that a wrong path costs no time

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._find_losses(trainer, pl_module)
        self._clock.find_length(trainer, "EpsilonScheduler")
        self._move(trainer, pl_module)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        epsilon = self._move(trainer, pl_module)  # not at the start of an epoch: a resume in mid-epoch has none
        if self.log_epsilon:
            for name in self._names:
                log_epsilon(trainer, name, epsilon, prog_bar=self.prog_bar)

    def _move(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Value:
        epsilon = self._clock.value(trainer)
        for path in self._paths:
            cast(PolyLoss, pl_module.get_submodule(path)).epsilon = epsilon
        return epsilon

    def _select(self, pl_module: pl.LightningModule) -> dict[PolyLoss, str]:
        """The losses to move, and their paths."""
        every = {
            path: module
            for path, module in pl_module.named_modules(remove_duplicate=False)
            if isinstance(module, PolyLoss)
        }
        # What torch.compile wraps is found by the path that it has in the user's code.
        available = {without_wrappers(path): module for path, module in every.items()}
        for path in self.loss or available:
            if path not in available:
                raise ValueError(f"`loss` must be among the paths {sorted(available)} of the losses, got {path!r}")
        if not available:
            raise ValueError(
                f"EpsilonScheduler moves losses of polyloss_lightning.losses, and {type(pl_module).__name__} has none"
            )
        real = {module: path for path, module in reversed(every.items())}
        return {available[path]: real[available[path]] for path in self.loss or available}

    def _find_losses(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        losses = self._select(pl_module)
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, EpsilonScheduler) and other is not self:
                shared = [path for loss, path in losses.items() if loss in other._select(pl_module)]
                if shared:
                    raise ValueError(f"two EpsilonSchedulers move the same losses: {shared}; set `loss` of each")
        for loss in losses:
            polynomial.check_num_terms(loss.num_terms, polynomial.as_epsilon(self.schedule(0.0)))
        self._paths = tuple(losses.values())
        every = sum(isinstance(module, PolyLoss) for module in pl_module.modules())
        self._names = (
            ("poly/epsilon",)
            if len(losses) == every
            else tuple(f"poly/{without_wrappers(path)}/epsilon" for path in self._paths)
        )
