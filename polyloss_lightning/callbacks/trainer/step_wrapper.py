"""Running the steps of a Trainer inside of a context manager, without changing the module that is trained."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeAlias

import lightning.pytorch as pl

StepCheck: TypeAlias = Callable[[Any], None]
StepContext: TypeAlias = Callable[[], AbstractContextManager[StepCheck | None]]


def wrap_step(strategy: "pl.strategies.Strategy", name: str, context: StepContext) -> None:
    """Make the strategy run its method ``name`` inside of ``context()``, until :func:`unwrap_step` is called.

    If the context manager yields a function, it is called with the result of the method.

    The wrapper is an attribute of the strategy instance. Wrapping the method of the module instead would not be safe:
    the wrapper would be copied and pickled with the module, but stay bound to the original.
    """
    step = vars(strategy).get(name)
    if not isinstance(step, _WrappedStep):
        step = _WrappedStep(getattr(strategy, name), displaced=step)
        setattr(strategy, name, step)
    if context not in step.contexts:
        step.contexts.append(context)


def unwrap_step(strategy: "pl.strategies.Strategy", name: str, context: StepContext) -> None:
    """Undo :func:`wrap_step`. Do nothing if ``context`` is not in use."""
    step = vars(strategy).get(name)
    if not isinstance(step, _WrappedStep):
        return
    step.contexts = [other for other in step.contexts if other != context]
    if step.contexts:
        return
    if step.displaced is None:
        delattr(strategy, name)
    else:
        setattr(strategy, name, step.displaced)


class _WrappedStep:
    """A method of a strategy and its contexts; ``displaced`` is the instance attribute that it replaces, if any."""

    def __init__(self, method: Callable[..., Any], displaced: Callable[..., Any] | None) -> None:
        self.method = method
        self.displaced = displaced
        self.contexts: list[StepContext] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            checks = [stack.enter_context(context()) for context in self.contexts]
            result = self.method(*args, **kwargs)
            for check in checks:
                if check is not None:
                    check(result)
            return result
