"""The observations of one step: what its losses saw, once, however often the step ran."""

from collections.abc import Mapping
from functools import partial

from torch.utils.hooks import RemovableHandle

from polyloss_lightning.core import Observable, Observation


class StepObserver:
    """Collects what the losses tell between the begin and the end of a step.

    A loss that is called several times in a step adds. Where an optimizer runs the step again (LBFGS, or SAM by a
    closure), the last run replaces the ones before. What is called after a backward pass is a run of its own only if
    a backward pass follows; else it is somebody's look at the trained step, and does not count. Outside of a step, and
    in a backward pass, nothing is collected: there learning-rate finders and activation checkpointing evaluate a loss
    again.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self.seen: list[tuple[str, Observation]] = []
        self._collecting = False
        self._pending: list[tuple[str, Observation]] = []
        self._in_backward = False
        self._ran = False

    def listen(self, observables: Mapping[str, Observable]) -> None:
        """Observe these losses, and no others any more."""
        self.close()
        self._handles = [loss.register_observer(partial(self._receive, path)) for path, loss in observables.items()]

    def close(self) -> None:
        """Observe nothing any more, and forget the step."""
        self.end()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def begin(self) -> None:
        """Begin a step; what is left of one that never ended is forgotten."""
        self.end()
        self._collecting = True

    def end(self) -> list[tuple[str, Observation]]:
        """End the step; returns path and observation of each call in it."""
        seen, self.seen, self._pending = self.seen, [], []
        self._collecting = self._in_backward = self._ran = False
        return seen

    def before_backward(self) -> None:
        """A backward pass begins."""
        if self._pending:
            self.seen, self._pending = self._pending, []
        self._in_backward = True

    def after_backward(self, *, rerun: bool) -> None:
        """A backward pass ended; with ``rerun`` another one means that the step ran again."""
        self._in_backward = False
        self._ran = rerun

    def _receive(self, path: str, observation: Observation) -> None:
        if not self._collecting or self._in_backward:
            return
        (self._pending if self._ran else self.seen).append((path, observation))
