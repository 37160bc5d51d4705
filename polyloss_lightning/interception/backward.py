"""Running backward passes inside of the mode, because activation checkpointing recomputes losses in them."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_skip_one_hop: Callable[..., Any] | None = getattr(torch._C, "_skip_one_hop_torch_function", None)

# An intercepted function runs with its mode disabled, so the losses recomputed in these would not be replaced.
BACKWARD_PASSES: frozenset[Callable[..., Any]] = frozenset(
    [torch.Tensor.backward]
    if _skip_one_hop is None
    else [torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad]
)


def in_backward_pass() -> bool:
    """Return whether a backward pass is running in this thread."""
    # Without this private name, the losses that activation checkpointing recomputes would be counted twice.
    return bool(getattr(torch._C, "_current_graph_task_id", lambda: -1)() != -1)


def run_in(
    mode: TorchFunctionMode, func: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run one of :data:`BACKWARD_PASSES` with the mode that intercepted it enabled again."""
    with mode:
        if _skip_one_hop is not None:
            return _skip_one_hop(func, types, args, kwargs)
        # Older versions of torch lack that function. Do what their Tensor.backward does, without intercepting it again.
        arguments = inspect.signature(torch.Tensor.backward).bind(*args, **kwargs).arguments
        return torch.autograd.backward(arguments.pop("self"), arguments.pop("gradient", None), **arguments)
