"""Poly-1 in the place of the losses that somebody's module calls."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, get_args

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from polyloss_lightning.callbacks.namespaces import Callback
from polyloss_lightning.callbacks.progress import Interval
from polyloss_lightning.callbacks.schedule_clock import ScheduleClock, log_epsilon
from polyloss_lightning.callbacks.step_wrapper import Around, unwrap_step, wrap_step
from polyloss_lightning.callbacks.term_names import Stage, check_choices
from polyloss_lightning.core import Observable
from polyloss_lightning.interception import CallSite, Elementwise, LossName, LossOverride, OnNothing
from polyloss_lightning.schedules import Schedule

# The backward pass too: non-reentrant activation checkpointing computes losses again in it.
_STEPS: dict[Stage, tuple[str, ...]] = {
    "train": ("training_step", "backward"),
    "val": ("validation_step",),
    "test": ("test_step",),
}


class PolyLossOverride(Callback):
    r"""Trains a module with Poly-1 losses without a line of its code.

    While a training step runs, every call of torch's loss functions, in whatever module and imported under whatever
    name, gets :math:`\sum_j \epsilon_j (1-P_t)^j` added per entry, weighted and reduced as the call says. See
    :func:`~polyloss_lightning.interception.override_losses` for what is kept and what can be replaced. Losses of this
    package inside of the module are left alone.

    After the first training step a table of the losses that were found, replaced or not and why, goes to Lightning's
    log; again at the end of an epoch if more were found. If none was replaced, the run ends there with an error.

    It changes nothing about the module: its methods, hooks and ``state_dict`` are as they were, during the run too.
    Of several overrides that cover the same call, the last in the list of callbacks acts.

    Args:
        epsilon: a finite number (Poly-1), a sequence (Poly-N), or a schedule of either over the run.
        losses: names of the functions to replace; None is all but ``"nll_loss"``, whose input is often no
            log-probability.
        scope: paths of modules, or globs of them, inside of which losses are replaced (``["model.roi_heads"]``); None
            is everywhere.
        stages: stages in which losses are replaced. By default validation and test are not among them, so that
            ``val_loss`` can be compared with past runs.
        elementwise: what to do with a loss of reduction ``"none"``, which may go into a mask and a mean or into a
            focal loss that takes ``exp(-ce)`` for Pt: ``"error"``, ``"apply"`` or ``"skip"``.
        on_nothing: ``"error"`` or ``"warn"``, if the first training step calls no loss that can be replaced.
        interval: for a schedule: what is counted, ``"step"`` or ``"epoch"``.
        begin: for a schedule: as in :class:`~polyloss_lightning.callbacks.EpsilonScheduler`.
        end: for a schedule: likewise.
        total: for a schedule: likewise.
        name: tells several overrides in one Trainer apart, in logs and checkpoints.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an option is out of its range; at the start of a run, if ``scope`` names no module, or two
            overrides have the same name.
        LossOverrideError: in training, if no loss was replaced or one cannot be replaced safely.

    Example:
        >>> trainer = pl.Trainer(callbacks=[PolyLossOverride(epsilon=2.0)], logger=False, enable_checkpointing=False)

        In the YAML of a LightningCLI::

            trainer:
              callbacks:
                - class_path: polyloss_lightning.callbacks.PolyLossOverride
                  init_args:
                    epsilon:
                      class_path: polyloss_lightning.schedules.LinearSchedule
                      init_args: {init_value: -1.0, end_value: 2.0}
    """

    def __init__(
        self,
        epsilon: float | Sequence[float] | Schedule = 1.0,
        *,
        losses: Sequence[LossName] | None = None,
        scope: Sequence[str] | None = None,
        stages: Sequence[Stage] = ("train",),
        elementwise: Elementwise = "error",
        on_nothing: OnNothing = "error",
        interval: Interval = "step",
        begin: int | float = 0,
        end: int | float | None = None,
        total: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.stages: tuple[Stage, ...] = check_choices("stages", stages, get_args(Stage))
        if not self.stages:
            raise ValueError(f"`stages` must name at least one of {get_args(Stage)}, got none")
        self.name = name
        self._clock = ScheduleClock(epsilon, interval, begin, end, total) if isinstance(epsilon, Schedule) else None
        self._override = LossOverride(
            epsilon(0.0) if isinstance(epsilon, Schedule) else epsilon,
            losses=losses,
            scope=scope,
            elementwise=elementwise,
            on_nothing=on_nothing,
        )
        self._arounds: dict[str, Around] = {}
        self._resolved = False
        self._reported = 0

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {} if self._clock is None else self._clock.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._clock is not None and state_dict:
            self._clock.load_state_dict(state_dict)

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """The perturbation in force."""
        return self._override.epsilon

    @property
    def call_sites(self) -> list[CallSite]:
        """The calls of losses seen in this run, by place: which were replaced, and why the others were not."""
        return self._override.call_sites

    def observables(self) -> dict[str, Observable]:
        """What a monitor can observe: each function that is replaced, by its name."""
        prefix = "" if self.name is None else f"{self.name}."
        return {prefix + function: loss for function, loss in self._override.observables().items()}

    # The run.

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Not later: a learning-rate finder trains before anybody's on_fit_start, and with its own callbacks only.
        names = [other.name for other in trainer.callbacks if isinstance(other, PolyLossOverride)]  # type: ignore[attr-defined]
        if len(set(names)) < len(names):
            raise ValueError(f"several PolyLossOverrides need a `name` each to tell them apart, got {names}")
        self._undo(trainer)
        self._override.forget()
        self._resolved = False
        self._reported = 0
        for of, methods in _STEPS.items():
            for method in methods:
                self._arounds[method] = partial(self._around, pl_module, of, report=method != "backward")
                wrap_step(trainer.strategy, method, self._arounds[method])

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._resolve_scope(pl_module)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._clock is not None:
            self._clock.find_length(trainer, "PolyLossOverride")
            self._override.epsilon = self._clock.value(trainer)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._clock is None:
            return
        self._override.epsilon = self._clock.value(trainer)
        log_epsilon(trainer, "poly/epsilon" if self.name is None else f"poly/{self.name}/epsilon", self.epsilon)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._resolve_scope(pl_module)  # the module may have got new parts
        if len(self.call_sites) > self._reported:
            self._report()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._undo(trainer)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._undo(trainer)

    def _resolve_scope(self, pl_module: pl.LightningModule) -> None:
        self._override.resolve_scope(pl_module)
        self._resolved = True

    def _undo(self, trainer: pl.Trainer) -> None:
        for method, around in self._arounds.items():
            unwrap_step(trainer.strategy, method, around)
        self._arounds = {}

    @contextmanager
    def _around(self, pl_module: pl.LightningModule, stage: Stage, *, report: bool) -> Iterator[None]:
        """What a step of ``stage`` runs in."""
        if not self._resolved:  # a learning-rate finder trains before on_fit_start
            self._resolve_scope(pl_module)
        if stage not in self.stages:
            with self._override.observing() if self._override.observed else nullcontext():
                yield
            return
        with self._override.replacing():
            yield
        if report and not self._reported and not pl_module.trainer.sanity_checking:
            self._report()
            self._override.check()

    def _report(self) -> None:
        self._reported = len(self.call_sites)
        rank_zero_info(f"{type(self).__name__}, epsilon {self.epsilon}:\n{self._override.table()}")
