"""Log-softmax that keeps its digits as Pt nears 1, for all classes or for one class a sample."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

_CONFIDENT = 0.55  # above 1/2, so that rounding cannot make two classes of a sample confident
# Elements done at a time: what stays in the cache of a core, and on a device what fills it.
_BLOCK, _BLOCK_OF_DEVICE = 1 << 17, 1 << 24


def exact_log_softmax(input: Tensor, class_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r"""``torch.log_softmax`` and 1 - P, with full relative accuracy also where P is near 1.

    In float32 torch's has nothing between 0 and -6e-8. Here the log-probability of a class with P above 0.55 is
    :math:`\log(1 - \sum_{k \ne t} P_k)`, whose sum keeps every digit, and so do the gradients.

    Args:
        input: logits, any shape.
        class_dim: the class axis.
        dtype: dtype of the results and of the computation.

    Returns:
        ``log P`` and ``1 - P``, of the shape of ``input``.
    """
    if not _in_closed_form(input):
        return _formula(input, class_dim, dtype)
    log_p, u = _LogSoftmax.apply(input, class_dim, dtype)
    return log_p, u


def _formula(input: Tensor, class_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Without masks: comparing and selecting cost four to five times as much as arithmetic on a CPU. The confident
    # class goes by way of log P = 0, P = 1: what is left when it is taken away is exact.
    log_p = torch.hardshrink(torch.log_softmax(input, class_dim, dtype=dtype), -math.log(_CONFIDENT))
    p = log_p.exp()
    confident = torch.hardshrink(p, 0.75)  # 1 at a confident class, else 0
    miss = (p - confident).sum(class_dim, keepdim=True)
    # Where no class is confident the miss is 1, and the slope of log1p at -1 would turn a factor of 0 into NaN.
    log_p = log_p + confident * torch.log1p(-miss.clamp_max(0.5))
    return log_p, 1 - p + confident * miss


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
        return log_pt
    return _formula(input, class_dim, dtype)[0].gather(class_dim, index).squeeze(class_dim)


def _in_closed_form(input: Tensor) -> bool:
    """Whether autograd in reverse mode alone looks on; tracers and other modes read the formula itself."""
    return (
        not torch.compiler.is_compiling()
        and type(input) in (Tensor, torch.nn.Parameter)
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch._C._are_functorch_transforms_active()
        and unpack_dual(input).tangent is None  # type: ignore[no-untyped-call]
    )


class _LogSoftmax(torch.autograd.Function):
    """The formula block by block, and its derivatives from log P alone.

    That is an output, so it has derivatives of its own: backward can be differentiated as often as one likes.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, class_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        log_p, u = torch.empty_like(input, dtype=dtype), torch.empty_like(input, dtype=dtype)
        for block in _blocks(input, class_dim):
            log_p[block], u[block] = _formula(input[block], class_dim, dtype)
        ctx.save_for_backward(log_p)
        ctx.set_materialize_grads(False)
        ctx.class_dim, ctx.dtype = class_dim, input.dtype
        return log_p, u

    @staticmethod
    def backward(ctx: Any, grad_log_p: Tensor | None, grad_u: Tensor | None) -> tuple[Tensor | None, ...]:
        (log_p,) = ctx.saved_tensors
        if grad_log_p is None and grad_u is None:
            return None, None, None
        if torch.is_grad_enabled():
            return _gradient(log_p, grad_log_p, grad_u, ctx.class_dim).to(ctx.dtype), None, None
        gradient = torch.empty_like(log_p, dtype=ctx.dtype)
        for block in _blocks(log_p, ctx.class_dim):
            of_log_p, of_u = (None if grad is None else grad[block] for grad in (grad_log_p, grad_u))
            gradient[block] = _gradient(log_p[block], of_log_p, of_u, ctx.class_dim)
        return gradient, None, None


def _blocks(tensor: Tensor, class_dim: int) -> Iterator[slice]:
    """Slices of whole samples along the first axis."""
    samples = tensor.shape[0]
    block = _BLOCK if tensor.device.type == "cpu" else _BLOCK_OF_DEVICE
    size = samples if class_dim == 0 else max(1, block * samples // max(1, tensor.numel()))
    return (slice(start, start + size) for start in range(0, samples, max(1, size)))


def _gradient(log_p: Tensor, grad_log_p: Tensor | None, grad_u: Tensor | None, class_dim: int) -> Tensor:
    """From the gradients of log P and u = 1 - P to that of the logits."""
    p = log_p.exp()
    grad = 0 if grad_log_p is None else grad_log_p
    if grad_u is not None:
        grad = grad - p * grad_u
    # g - P sum(g), where the terms of a confident class itself are put together: g (1 - P).
    confident = torch.hardshrink(p, _CONFIDENT).sign()
    own = grad * confident
    rest, others = grad - own, p - p * confident
    own_sum, rest_sum, miss = (part.sum(class_dim, keepdim=True) for part in (own, rest, others))
    return rest + own * miss - p * rest_sum - others * own_sum


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
        return log_pt.squeeze(class_dim), slope

    @staticmethod
    def backward(ctx: Any, grad_log_pt: Tensor | None, grad_slope: Tensor | None) -> tuple[Tensor | None, ...]:
        slope, index = ctx.saved_tensors
        grad = None
        if grad_log_pt is not None:
            grad = slope * -grad_log_pt.unsqueeze(ctx.class_dim)
        if grad_slope is not None:
            p = slope.scatter_add(ctx.class_dim, index, torch.ones_like(index, dtype=slope.dtype))
            along = p * (grad_slope - (p * grad_slope).sum(ctx.class_dim, keepdim=True))
            grad = along if grad is None else grad + along
        return None if grad is None else grad.to(ctx.dtype), None, None, None
