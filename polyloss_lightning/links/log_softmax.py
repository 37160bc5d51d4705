"""Log-softmax that keeps its digits as Pt nears 1, for all classes or for one class a sample."""

import math
from typing import Any

import torch
from torch import Tensor

from polyloss_lightning.links.tracing import plain_autograd

_CONFIDENT = 0.55  # above 1/2, so that rounding cannot make two classes of a sample confident


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
    if not plain_autograd(input):
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
    """:func:`exact_log_softmax` at one class a sample; no more than for torch's is kept for backward.

    Args:
        input: logits, any shape.
        index: class indices, of the shape of ``input`` without the class axis.
        class_dim: the class axis.
        dtype: dtype of the result and of the computation.
    """
    index = index.unsqueeze(class_dim)
    if plain_autograd(input):
        log_pt: Tensor = _LogSoftmaxAt.apply(input, index, class_dim, dtype)[0]
        return log_pt
    return _formula(input, class_dim, dtype)[0].gather(class_dim, index).squeeze(class_dim)


class _LogSoftmax(torch.autograd.Function):
    """The formula, and its derivatives from log P alone.

    That is an output, so it has derivatives of its own: backward can be differentiated as often as one likes.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, class_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        log_p, u = _formula(input, class_dim, dtype)
        ctx.save_for_backward(log_p)
        ctx.set_materialize_grads(False)
        ctx.class_dim, ctx.dtype = class_dim, input.dtype
        return log_p, u

    @staticmethod
    def backward(ctx: Any, grad_log_p: Tensor | None, grad_u: Tensor | None) -> tuple[Tensor | None, ...]:
        (log_p,) = ctx.saved_tensors
        if grad_log_p is None and grad_u is None:
            return None, None, None
        return _gradient(log_p, grad_log_p, grad_u, ctx.class_dim).to(ctx.dtype), None, None


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
