"""Collecting the observations of one step, once per loss call, even if the optimizer runs the step several times."""

from collections.abc import Mapping
from functools import partial
from typing import Literal, TypeAlias

from torch.utils.hooks import RemovableHandle

from polyloss_lightning.callbacks.trainer.find_losses import Observable
from polyloss_lightning.core import Observation

Seen: TypeAlias = list[tuple[str, Observation]]


class ObservationCollector:
    """Collects the observations that losses pass to their observers between the start and the end of a step.

    If a loss is called several times in a step, all of its observations are kept. If an optimizer runs the step again
    (LBFGS, or SAM with a closure), the last run replaces the earlier ones. Calls after a backward pass count as a
    re-run only if another backward pass follows. Otherwise they are ignored (for example, user code that logs the loss
    after the step). Nothing is collected outside of a step or during a backward pass, because learning-rate finders
    and activation checkpointing evaluate losses again there.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._phase: Literal["outside", "forward", "backward", "after backward"] = "outside"
        self._seen: Seen = []
        self._pending: Seen = []  # calls after a backward pass

    def attach(self, observables: Mapping[str, Observable]) -> None:
        """Observe these losses from the next step on, and stop observing all others."""
        self.end()
        for handle in self._handles:
            handle.remove()
        self._handles = [loss.register_observer(partial(self._receive, path)) for path, loss in observables.items()]

    def begin(self) -> None:
        """Begin a step, and discard the observations of an earlier step that never ended."""
        self.end()
        self._phase = "forward"

    def end(self) -> Seen:
        """End the step and return the path and the observation of each loss call in it."""
        seen, self._seen, self._pending = self._seen, [], []
        self._phase = "outside"
        return seen

    def before_backward(self) -> None:
        """Note that a backward pass begins."""
        self._seen, self._pending = self._pending or self._seen, []
        if self._phase != "outside":
            self._phase = "backward"

    def after_backward(self, *, rerun: bool) -> None:
        """Note that a backward pass has ended. ``rerun``: whether another one would mean that the step runs again."""
        if self._phase != "outside":
            self._phase = "after backward" if rerun else "forward"

    def _receive(self, path: str, observation: Observation) -> None:
        if self._phase == "forward":
            self._seen.append((path, observation))
        elif self._phase == "after backward":
            self._pending.append((path, observation))
