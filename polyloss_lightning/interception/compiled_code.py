"""What the override needs of ``torch.compile``: a graph break at a loss, and code that runs uncompiled for a while."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch


def outside_of_graphs(reason: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Break the graph at every call of the decorated function, and run it as plain Python.

    A break at the loss costs less than one percent of a compiled training step (``benchmarks/interception.py``), so
    there is no second way that traces the replacement into the graph. The error of ``fullgraph=True`` shows ``reason``.
    """
    options = {"reason": reason} if "reason" in inspect.signature(torch.compiler.disable).parameters else {}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        decorated: Callable[..., Any] = torch.compiler.disable(function, recursive=False, **options)  # type: ignore[no-untyped-call]
        return decorated

    return decorate


@outside_of_graphs("runs as plain Python")
def leave_compiled_code(stack: contextlib.ExitStack) -> None:
    """Run everything that is compiled uncompiled until ``stack`` is closed, beginning with the rest of the caller."""
    with contextlib.suppress(ImportError):
        from torch._C._dynamo.eval_frame import set_eval_frame

        set_eval_frame(None)
    with contextlib.suppress(RuntimeError):  # in compiled code that could not be left
        stack.enter_context(_force_eager())


@contextlib.contextmanager
def _force_eager() -> Iterator[None]:
    """Set the stance "force_eager" while at least one of these contexts is open, in whichever order they are closed."""
    if not _open_contexts:
        _stance.enter_context(torch.compiler.set_stance("force_eager"))
    _open_contexts.append(None)
    try:
        yield
    finally:
        _open_contexts.pop()
        if not _open_contexts:
            _stance.close()


_counters: Any = None
with contextlib.suppress(ImportError):
    from torch._dynamo.utils import counters as _counters
_open_contexts: list[None] = []
_stance = contextlib.ExitStack()


def frames_compiled() -> int:
    """Return how many functions torch.compile has compiled so far, in all of the process."""
    return int(_counters["frames"]["total"]) if _counters else 0


def skip_as_frame(function: Callable[..., Any]) -> None:
    """Make torch.compile trace ``function`` only when it is inlined into a graph, never on its own.

    Code between two graphs runs as plain Python. There, torch.compile would otherwise compile ``__torch_function__``
    separately for every torch function that is called.
    """
    with contextlib.suppress(ImportError):
        from torch._dynamo.decorators import skip_code  # type: ignore[attr-defined]

        skip_code(function.__code__)
