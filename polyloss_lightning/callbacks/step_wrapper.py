"""Running something around the steps of a Trainer, with no trace in the module that is trained."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeAlias

import lightning.pytorch as pl

Around: TypeAlias = Callable[[], AbstractContextManager[Any]]


def wrap_step(strategy: "pl.strategies.Strategy", name: str, around: Around) -> None:
    """Have the strategy run its method ``name`` inside of what ``around`` gives, until :func:`unwrap_step`.

    The strategy's instance gets an attribute of that name. The module's own method stays as it is: a wrapper on it
    would be copied and pickled with the module, bound to the original.
    """
    step = vars(strategy).get(name)
    if not isinstance(step, _WrappedStep):
        step = _WrappedStep(getattr(strategy, name), displaced=step)
        setattr(strategy, name, step)
    if around not in step.arounds:
        step.arounds.append(around)


def unwrap_step(strategy: "pl.strategies.Strategy", name: str, around: Around) -> None:
    """Undo :func:`wrap_step`; nothing happens where nothing is wrapped."""
    step = vars(strategy).get(name)
    if not isinstance(step, _WrappedStep):
        return
    step.arounds = [other for other in step.arounds if other != around]
    if step.arounds:
        return
    if step.displaced is None:
        delattr(strategy, name)
    else:
        setattr(strategy, name, step.displaced)


class _WrappedStep:
    """A method of a strategy, and what runs around it; ``displaced`` is what somebody had put in its place before."""

    def __init__(self, method: Callable[..., Any], displaced: Callable[..., Any] | None) -> None:
        self.method = method
        self.displaced = displaced
        self.arounds: list[Around] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for around in self.arounds:
                stack.enter_context(around())
            return self.method(*args, **kwargs)
