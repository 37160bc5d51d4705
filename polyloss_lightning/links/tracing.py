"""Who looks on while a loss is computed."""

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual


def plain_autograd(*tensors: Tensor) -> bool:
    """Whether nobody but autograd in reverse mode looks on, so that a derivative in closed form will do.

    Tracers (``torch.compile``, ``torch.export``, ``torch.jit``), the transforms of ``torch.func``, forward mode and
    subclasses of tensors read the formula itself.
    """
    return (
        not torch.compiler.is_compiling()
        and all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch._C._are_functorch_transforms_active()
        and all(unpack_dual(tensor).tangent is None for tensor in tensors)  # type: ignore[no-untyped-call]
    )


def constant(*factors: Tensor | float | None) -> bool:
    """Whether no derivative by any of the ``factors`` is asked for."""
    tensors = [factor for factor in factors if isinstance(factor, Tensor)]
    return plain_autograd(*tensors) and not any(tensor.requires_grad for tensor in tensors)
