"""Running backward passes inside of the mode, because activation checkpointing recomputes losses in them."""

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
    if func is torch.Tensor.backward:  # what it does itself, without a second interception
        func, kwargs = torch.autograd.backward, dict(kwargs)
        kwargs["grad_tensors"] = kwargs.pop("gradient", None)
    with mode:
        return func(*args, **kwargs) if _skip_one_hop is None else _skip_one_hop(func, types, args, kwargs)
