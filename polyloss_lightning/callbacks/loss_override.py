"""The callback that replaces torch's loss functions by Poly-1 losses while a module trains."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from polyloss_lightning._checks import check_choices
from polyloss_lightning.callbacks.base import Callback
from polyloss_lightning.callbacks.trainer.log_names import Stage
from polyloss_lightning.callbacks.trainer.step_wrapper import StepCheck, StepContext, unwrap_step, wrap_step
from polyloss_lightning.core import polynomial
from polyloss_lightning.interception import CallSite, Elementwise, LossName, LossOverride, OnNothing, ReplacedLoss
from polyloss_lightning.schedules import Schedule

Epsilon: TypeAlias = float | Sequence[float]
if not TYPE_CHECKING:
    # LightningCLI builds a schedule given in YAML, so that the error below can say where a schedule belongs.
    Epsilon = Epsilon | Schedule

# The backward pass is included because non-reentrant activation checkpointing recomputes losses in it.
_STRATEGY_METHODS: dict[str, Stage]
_STRATEGY_METHODS = {"training_step": "train", "backward": "train", "validation_step": "val", "test_step": "test"}


class PolyLossOverride(Callback):
    r"""Trains any module with Poly-1 losses, without changing its code.

    While a training step runs, :math:`\sum_j \epsilon_j (1-P_t)^j` is added per entry to every call of torch's loss
    functions, whichever module makes the call and under whichever name it imported the function. The sum is weighted
    and reduced according to the arguments of the call.
    :func:`~polyloss_lightning.interception.override_losses` documents which functions can be replaced and which of
    their arguments are kept. Losses of this package inside of the module are not replaced.

    After the first training step, Lightning's log shows a table of the loss calls that were found, whether each was
    replaced, and if not, why. The table is logged again at the end of an epoch that found more calls. If no call was
    replaced in the first step, the run ends with an error. It also ends with an error if the loss of a step is computed
    from an exponential of a replaced loss, as in a focal loss with ``pt = exp(-ce)``. Other values that the module
    computes from a replaced loss, such as a perplexity, come from the Poly loss, not from torch's.

    The module itself is not changed: its methods, hooks and ``state_dict`` stay the same, even during the run. If
    several overrides cover the same call, the last one in the list of callbacks applies. An epsilon that was moved is
    saved in the checkpoint, and restored by an override that is built with the same epsilon.

    Args:
        epsilon: a finite number (Poly-1) or a sequence (Poly-N). An
            :class:`~polyloss_lightning.callbacks.EpsilonScheduler` beside this callback moves it along a schedule.
        losses: names of the functions to replace; None replaces all except ``"nll_loss"``, whose input is often not a
            log-probability.
        scope: module paths or glob patterns; only losses called inside of these modules are replaced (for example
            ``["model.roi_heads"]``). None replaces losses everywhere.
        stages: stages in which losses are replaced. By default this is only training, so that ``val_loss`` can be
            compared with past runs.
        elementwise: what to do with a loss of reduction ``"none"``: ``"error"``, ``"apply"`` or ``"skip"``. Masking
            and averaging it is fine; :func:`~polyloss_lightning.interception.override_losses` explains what is not.
        on_nothing: ``"error"`` or ``"warn"``: what to do if the first training step calls no loss that can be
            replaced.
        name: distinguishes several overrides in one Trainer and in logs, and is what the argument ``loss``
            of an ``EpsilonScheduler`` refers to.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range; at the start of a run, if a pattern of ``scope`` matches no module
            or two overrides have the same name.
        LossOverrideError: in training, if no loss was replaced, or if one cannot be replaced safely.

    Example:
        >>> trainer = pl.Trainer(callbacks=[PolyLossOverride(epsilon=2.0)], logger=False, enable_checkpointing=False)

        In the YAML of a LightningCLI::

            trainer:
              callbacks:
                - class_path: polyloss_lightning.callbacks.PolyLossOverride
                - class_path: polyloss_lightning.callbacks.EpsilonScheduler
                  init_args:
                    schedule:
                      class_path: polyloss_lightning.schedules.LinearSchedule
                      init_args: {init_value: -1.0, end_value: 2.0}
    """

    def __init__(
        self,
        epsilon: Epsilon = 1.0,
        *,
        losses: Sequence[LossName] | None = None,
        scope: Sequence[str] | None = None,
        stages: Sequence[Stage] = ("train",),
        elementwise: Elementwise = "error",
        on_nothing: OnNothing = "error",
        name: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(epsilon, Schedule):
            raise TypeError(
                f"`epsilon` must be a finite number or a sequence of them, got {epsilon!r}: a schedule belongs in an "
                "EpsilonScheduler beside this callback, which moves the epsilon of an override too"
            )
        self.stages: tuple[Stage, ...] = check_choices("stages", stages, get_args(Stage))
        if not self.stages:
            raise ValueError(f"`stages` must contain at least one of {get_args(Stage)}, got an empty sequence")
        self.losses, self.scope, self.name = losses, scope, name
        self.elementwise, self.on_nothing = elementwise, on_nothing
        self._override = LossOverride(
            epsilon, losses=losses, scope=scope, elementwise=elementwise, on_nothing=on_nothing
        )
        self.initial_epsilon = self.epsilon
        self._contexts: dict[str, StepContext] = {}  # by the method of the strategy that they wrap
        self._resolved = False  # whether the scope has been looked up in the module
        self._reported: int | None = None  # number of call sites in the latest table

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """The current epsilon."""
        return self._override.epsilon

    @epsilon.setter
    def epsilon(self, epsilon: float | Sequence[float]) -> None:
        self._override.epsilon = epsilon

    @property
    def call_sites(self) -> list[CallSite]:
        """The loss calls found in this run, one entry per line of code, with the reason if a call was not replaced."""
        return self._override.call_sites

    def observables(self) -> dict[str, ReplacedLoss]:
        """Return the replaced functions by name, for a monitor to observe."""
        prefix = "" if self.name is None else f"{self.name}."
        return {prefix + function: loss for function, loss in self._override.observables().items()}

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    # Not in state_dict: Lightning would then refuse several overrides without names, and its error has no reason.
    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.epsilon != self.initial_epsilon:
            initial, current = (list(polynomial.as_epsilon(one)) for one in (self.initial_epsilon, self.epsilon))
            state = {"version": 1, "initial_epsilon": initial, "epsilon": current}
            checkpoint["callbacks"][self.state_key] = state

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state = checkpoint["callbacks"].get(self.state_key)
        # An override that was built with another epsilon than that of the checkpoint keeps it.
        initial = list(polynomial.as_epsilon(self.initial_epsilon))
        if state and self._can_restore(state, version=1) and state["initial_epsilon"] == initial:
            self.epsilon = state["epsilon"]

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Not in a later hook: a learning-rate finder trains before on_fit_start, and only with its own callbacks.
        names = [other.name for other in trainer.callbacks if isinstance(other, PolyLossOverride)]  # type: ignore[attr-defined]
        if len(set(names)) < len(names):
            raise ValueError(
                f"several PolyLossOverrides in one Trainer need a `name` each, and all different, got {names}"
            )
        self.teardown(trainer, pl_module, stage)
        self._override.forget()
        self._reported = None
        for method, of in _STRATEGY_METHODS.items():
            self._contexts[method] = partial(self._step_context, pl_module, of, report=method != "backward")
            wrap_step(trainer.strategy, method, self._contexts[method])

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._resolved = False  # submodules may have been added
        if len(self.call_sites) > (self._reported or 0):
            self._report()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for method, context in self._contexts.items():
            unwrap_step(trainer.strategy, method, context)
        self._contexts = {}
        self._resolved = False

    @contextmanager
    def _step_context(self, pl_module: pl.LightningModule, stage: Stage, *, report: bool) -> Iterator[StepCheck | None]:
        """Replace or observe the losses during a step of ``stage``."""
        if not self._resolved:
            self._override.resolve_scope(pl_module)
            self._resolved = True
        if stage not in self.stages:
            with self._override.intercepting(replace=False) if self._override.observed else nullcontext():
                yield None
            return
        with self._override.intercepting():
            yield self._override.refuse if report else None
        if pl_module.trainer.sanity_checking:
            self._override.forget()  # what validation calls says nothing about training, which is checked next
        elif report and self._reported is None:
            self._report()
            self._override.check()

    def _report(self) -> None:
        self._reported = len(self.call_sites)
        rank_zero_info(f"{type(self).__name__}, epsilon {self.epsilon}:\n{self._override.table()}")
