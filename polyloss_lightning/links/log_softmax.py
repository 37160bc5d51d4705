"""Log-softmax that keeps its digits as Pt nears 1, for all classes or for one class a sample."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

_CONFIDENT = 0.55  # above 1/2, so that rounding cannot make two classes of a sample confident


def exact_log_softmax(input: Tensor, class_dim: int, dtype: torch.dtype) -> Tensor:
    r"""``torch.log_softmax``, with full relative accuracy also where Pt is near 1.

    In float32 torch's has nothing between 0 and -6e-8. Here the log-probability of a class with Pt above 0.55 is
    :math:`\log(1 - \sum_{k \ne t} P_k)`, whose sum keeps every digit, and so do its gradients.

    Args:
        input: logits, any shape.
        class_dim: the class axis.
        dtype: dtype of the result and of the computation.
    """
    log_p = torch.log_softmax(input, class_dim, dtype=dtype)
    p = log_p.exp()
    confident = p > _CONFIDENT
    miss = p.masked_fill(confident, 0).sum(class_dim, keepdim=True)
    # Where no class is confident the miss is 1, and the slope of log1p at -1 would turn a masked 0 into NaN.
    return torch.where(confident, torch.log1p(-miss.clamp_max(0.5)), log_p)


def exact_log_softmax_at(input: Tensor, index: Tensor, class_dim: int, dtype: torch.dtype) -> Tensor:
    """:func:`exact_log_softmax` at one class a sample, without a pass over the classes that torch's does not make.

    Args:
        input: logits, any shape.
        index: class indices, of the shape of ``input`` without the class axis.
        class_dim: the class axis.
        dtype: dtype of the result and of the computation.
    """
    index = index.unsqueeze(class_dim)
    if _in_closed_form(input):
        log_pt: Tensor = _LogSoftmaxAt.apply(input, index, class_dim, dtype)[0]
    else:
        log_pt = exact_log_softmax(input, class_dim, dtype).gather(class_dim, index)
    return log_pt.squeeze(class_dim)


def _in_closed_form(input: Tensor) -> bool:
    """Whether autograd in reverse mode alone looks on; tracers and other modes read the formula itself."""
    return (
        not torch.compiler.is_compiling()
        and type(input) in (Tensor, torch.nn.Parameter)
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch._C._are_functorch_transforms_active()
        and unpack_dual(input).tangent is None  # type: ignore[no-untyped-call]
    )


class _LogSoftmaxAt(torch.autograd.Function):
    """log Pt, and the negative of its derivative by the logits: P, with Pt - 1 at the class itself.

    The second output is what backward needs. As an output it has derivatives of its own, so backward can be
    differentiated as often as one likes, and nothing else of the size of the logits is kept.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, index: Tensor, class_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        slope = torch.log_softmax(input, class_dim, dtype=dtype)
        log_pt = slope.gather(class_dim, index)
        slope.exp_().scatter_(class_dim, index, 0)
        miss = slope.sum(class_dim, keepdim=True)
        log_pt = torch.where(miss < 1 - _CONFIDENT, torch.log1p(-miss), log_pt)
        slope.scatter_(class_dim, index, -miss)
        ctx.save_for_backward(slope, index)
        ctx.set_materialize_grads(False)
        ctx.class_dim, ctx.dtype = class_dim, input.dtype
        return log_pt, slope

    @staticmethod
    def backward(ctx: Any, grad_log_pt: Tensor | None, grad_slope: Tensor | None) -> tuple[Tensor | None, ...]:
        slope, index = ctx.saved_tensors
        grad = None
        if grad_log_pt is not None:
            grad = slope * -grad_log_pt
        if grad_slope is not None:
            p = slope.scatter_add(ctx.class_dim, index, torch.ones_like(index, dtype=slope.dtype))
            along = p * (grad_slope - (p * grad_slope).sum(ctx.class_dim, keepdim=True))
            grad = along if grad is None else grad + along
        return None if grad is None else grad.to(ctx.dtype), None, None, None
