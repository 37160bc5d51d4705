"""The callback that moves epsilon along a schedule."""

from collections.abc import Sequence
from typing import Any, cast

import lightning.pytorch as pl
from typing_extensions import override

from polyloss_lightning.callbacks.base_callback import Callback
from polyloss_lightning.callbacks.progress import Interval
from polyloss_lightning.callbacks.schedule_evaluator import ScheduleEvaluator, log_epsilon
from polyloss_lightning.core import polynomial
from polyloss_lightning.interception.scope import without_wrappers
from polyloss_lightning.losses import PolyLoss
from polyloss_lightning.schedules import Schedule
from polyloss_lightning.schedules.base import Value


class EpsilonScheduler(Callback):
    r"""Moves the epsilon of the losses of a module along a schedule, as a pure function of the run's progress.

    The run consists of ``total`` units (optimizer steps or epochs). The schedule moves within a window of them, from
    unit ``begin`` up to but not including unit ``end``. In unit :math:`s`

    .. math:: t = \frac{s - \text{begin}}{\text{end} - 1 - \text{begin}}, \text{ clamped to } [0, 1],

    so t is 0 in the first unit of the window and exactly 1 in its last unit. (If the window has only one unit, t is 1
    there.) The callback keeps no counter of its own, so a resumed run uses the same epsilons as an uninterrupted one.
    Epsilon does not change within an optimizer step (gradient accumulation). Validation uses the current epsilon, and
    the last epsilon stays set on the loss after ``fit``.

    In manual optimization a step is a batch, no matter how many optimizers step in it. ``Trainer(max_steps=...)``
    counts the steps of all optimizers, so the length of the run cannot be derived from it, and ``total`` is needed.

    The callback logs ``poly/epsilon`` every ``log_every_n_steps`` (for Poly-N ``poly/epsilon_1``, ...). If it moves
    only some of the losses of the module, it logs ``poly/{path}/epsilon`` for each of them.

    Args:
        schedule: a function of t in [0, 1] from :mod:`polyloss_lightning.schedules`, or your own.
        interval: the unit of progress, ``"step"`` (optimizer steps) or ``"epoch"``.
        begin: first unit of the window, either a fraction of the run (float) or a number of units (int).
        end: the unit after the last one of the window, in the same form; None is the end of the run. (``1.0`` is the
            end of the run, ``1`` is one unit.)
        loss: path of the loss in the module, or several paths; None moves every
            :class:`~polyloss_lightning.losses.PolyLoss` in it.
        total: length of the run in units. Needed only if it cannot be derived from the Trainer, that is, with
            ``max_epochs=-1`` and no ``max_steps`` (``max_time``), an iterable dataset, or a
            ``GradientAccumulationScheduler``.
        log_epsilon: log epsilon (to the logger, if there is one, and to ``trainer.callback_metrics``).
        prog_bar: show epsilon in the progress bar; it is then logged in every step.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range; at the start of training, if the module has no such loss, if two
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
        self._evaluator = ScheduleEvaluator(schedule, interval, begin, end, total)
        self.schedule, self.interval, self.window, self.total = schedule, interval, self._evaluator.window, total
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
        # Schedulers of different losses need separate states. The schedule is not in the key, so it may be changed.
        return self._generate_state_key(loss=self.loss and tuple(sorted(self.loss)))

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._evaluator.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._evaluator.load_state_dict(state_dict)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._find_losses(trainer, pl_module)  # before the sanity check, so that a wrong path fails early

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._find_losses(trainer, pl_module)
        self._evaluator.find_length(trainer, "EpsilonScheduler")
        self._move(trainer, pl_module)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        epsilon = self._move(trainer, pl_module)  # in every batch, because a mid-epoch resume calls no epoch-start hook
        if self.log_epsilon:
            for name in self._names:
                log_epsilon(trainer, name, epsilon, prog_bar=self.prog_bar)

    def _move(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Value:
        epsilon = self._evaluator.value(trainer)
        for path in self._paths:
            cast(PolyLoss, pl_module.get_submodule(path)).epsilon = epsilon
        return epsilon

    def _select(self, pl_module: pl.LightningModule) -> dict[PolyLoss, str]:
        """Return the losses to move and their paths."""
        every = {
            path: module
            for path, module in pl_module.named_modules(remove_duplicate=False)
            if isinstance(module, PolyLoss)
        }
        # Users name a module wrapped by torch.compile by its path in their own code, without the wrapper.
        available = {without_wrappers(path): module for path, module in every.items()}
        for path in self.loss or available:
            if path not in available:
                raise ValueError(f"`loss` must be among {sorted(available)}, the paths of the losses, got {path!r}")
        if not available:
            raise ValueError(
                "EpsilonScheduler needs a module with a loss of polyloss_lightning.losses, and "
                f"{type(pl_module).__name__} has none"
            )
        real = {module: path for path, module in reversed(every.items())}
        return {available[path]: real[available[path]] for path in self.loss or available}

    def _find_losses(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        losses = self._select(pl_module)
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, EpsilonScheduler) and other is not self:
                shared = [path for loss, path in losses.items() if loss in other._select(pl_module)]
                if shared:
                    raise ValueError(
                        f"two EpsilonSchedulers move the same losses: {shared}; set `loss` on each scheduler"
                    )
        for loss in losses:
            polynomial.check_num_terms(loss.num_terms, polynomial.as_epsilon(self.schedule(0.0)))
        self._paths = tuple(losses.values())
        every = sum(isinstance(module, PolyLoss) for module in pl_module.modules())
        self._names = (
            ("poly/epsilon",)
            if len(losses) == every
            else tuple(f"poly/{without_wrappers(path)}/epsilon" for path in self._paths)
        )
