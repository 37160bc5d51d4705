"""Running the steps of a Trainer inside of a context manager, without changing the module that is trained."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
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
    step.contexts.append(context)


def unwrap_step(strategy: "pl.strategies.Strategy", name: str, context: StepContext) -> None:
    """Undo :func:`wrap_step`. Do nothing if ``context`` is not in use."""
    step = vars(strategy).get(name)
    if not isinstance(step, _WrappedStep):
        return
    step.contexts = [other for other in step.contexts if other != context]
    if not step.contexts:
        delattr(strategy, name)
        if step.displaced is not None:
            setattr(strategy, name, step.displaced)


@dataclass(eq=False)
class _WrappedStep:
    """A method of a strategy and its contexts; ``displaced`` is the instance attribute that it replaces, if any."""

    method: Callable[..., Any]
    displaced: Callable[..., Any] | None
    contexts: list[StepContext] = field(default_factory=list)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            checks = [stack.enter_context(context()) for context in self.contexts]
            result = self.method(*args, **kwargs)
            for check in checks:
                if check is not None:
                    check(result)
            return result
