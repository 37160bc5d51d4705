r"""Softmax losses with their gradients in closed form.

With :math:`s_k` the weight of class k in the loss of a sample and :math:`V, A` the value and the slope of the
polynomial, the loss is :math:`\sum_k s_k V(P_k)`. Since :math:`\partial \log P_k / \partial x_j = \delta_{kj} - P_j`,

.. math:: \frac{\partial\ell}{\partial x_j} = P_j \sum_k s_k A_k - s_j A_j

Each function takes the logits and their softmax ``p``, which it overwrites with the gradient, and returns the loss of
each sample. ``dim`` is the dimension of the classes; tensors of one number per sample have size 1 there. ``log_p`` and
``shares`` receive the log-probabilities and weights of the entries if they are observed.
"""

import math

import torch
from torch import Tensor

from polyloss_lightning.core.entries import Plan, drop_impossible, view_along
from polyloss_lightning.core.polynomial import value_and_slope

_TINY = 1e-30  # below it a float32 softmax has few digits
_SMALL = 1 << 14


def one_class(
    input: Tensor, p: Tensor, dim: int, index: Tensor, weight: Tensor | None, plan: Plan, log_p: Tensor | None
) -> Tensor:
    """Compute w V(Pt), for one class t per sample."""
    p_t = p.gather(dim, index)
    one_minus_p = p.scatter_(dim, index, 0).sum(dim, keepdim=True)  # 1 - Pt: sums the others, so nothing cancels
    nll = (one_minus_p / p_t).log1p_()  # -log Pt = log(1 + (1 - Pt) / Pt)
    if not plan.read or not p_t.min().item() >= _TINY:
        # -log Pt = (max x - x_t) - log max P, and t is not the maximum
        gap = input.amax(dim, keepdim=True).to(p.dtype) - input.gather(dim, index)
        nll = torch.where(p_t < _TINY, gap - p.amax(dim, keepdim=True).log(), nll)
    if log_p is not None:
        torch.neg(nll, out=log_p)
    value, slope = value_and_slope(nll, one_minus_p, p_t, *plan.polynomial, scale=plan.scale)
    if weight is not None:
        value, slope = value * weight, slope * weight
    p.scatter_(dim, index, one_minus_p.neg_()).mul_(slope)  # dx_k = w A P_k if k != t, dx_t = -w A (1 - Pt)
    return value


def one_class_smoothed(
    input: Tensor,
    p: Tensor,
    dim: int,
    index: Tensor,
    counted: Tensor | None,
    plan: Plan,
    smoothing: float,
    log_p: Tensor | None,
    shares: Tensor | None,
) -> Tensor:
    """Compute Poly-1 cross-entropy of smoothed class indices; ``counted`` is 0 for ignored samples.

    The weights are ``own + spread`` for class t and ``spread`` for the others. What they weigh linearly needs no tensor
    of weights, and the terms ``spread * epsilon * P_k`` of the gradient cancel.
    """
    num_classes, epsilon, scale = p.shape[dim], plan.polynomial.epsilon[0], plan.scale
    own, spread = 1 - smoothing, smoothing / num_classes
    highest, p_t = input.amax(dim, keepdim=True).to(p.dtype), p.gather(dim, index)
    gap = highest - input.gather(dim, index)
    lowest_nll = p_t.log().add_(gap).neg_()  # -log max P, which is as exact as the logarithm of Pt is
    if not plan.read or not p_t.min().item() >= _TINY:
        lowest_nll = torch.where(p_t < _TINY, p.amax(dim, keepdim=True).log_().neg_(), lowest_nll)
    # sum_k (max x - x_k), without a tensor of them unless the logits share an offset, whose digits would be lost
    gaps = (num_classes * highest).sub_(input.sum(dim, keepdim=True, dtype=p.dtype))
    if not plan.read or not (2 * gaps >= num_classes * highest.abs()).all().item():
        step = max(1, len(input) // 16) if dim > 0 else num_classes
        parts = zip(torch.split(highest, step), torch.split(input, step), strict=True)
        gaps = torch.cat([(highest - input).sum(dim, keepdim=True) for highest, input in parts])
    if log_p is not None:
        torch.sub(input, highest, out=log_p).sub_(lowest_nll)
    if shares is not None:
        shares.fill_(spread).scatter_(dim, index, own + spread)
        if counted is not None:
            shares.mul_(counted)
    value = own * (gap + lowest_nll + epsilon * (1 - p_t))
    value += spread * (gaps + num_classes * lowest_nll + epsilon * (num_classes - 1))
    factor = scale if counted is None else scale * counted
    slope = (own * factor) * (1 + epsilon * p_t)
    p.mul_(slope + smoothing * factor).sub_(spread * factor)  # dx_k = P_k (own A_t + C spread) - spread, k != t
    p.scatter_add_(dim, index, slope.neg_())  # dx_t is less by own A_t
    return value


def every_class(input: Tensor, p: Tensor, dim: int, shares: Tensor, plan: Plan, log_p: Tensor | None) -> Tensor:
    """Compute sum_k s_k V(P_k), for the weights s = ``shares`` of all classes."""
    highest, c = p.amax(dim, keepdim=True), None
    # -log P = (max x - x) - log max P: neither is large if the logits share an offset.
    nll = (input.amax(dim, keepdim=True) - input.to(p.dtype)).sub_(highest.log())
    one_minus_p = torch.rsub(p, 1)
    if not plan.read or not highest.max().item() <= 0.5:
        # Digits are lost only where P is above 1/2, in one class c per sample at most: it is treated as in one_class.
        # What is computed for c is right for any class, so if no class of a sample is above 1/2, any will do.
        small = p.numel() <= _SMALL
        if small:
            c, p_c = p.argmax(dim, keepdim=True), highest
        else:  # argmax is slow
            classes = view_along(torch.arange(p.shape[dim], dtype=p.dtype, device=p.device), p, dim)
            c = torch.gt(p, 0.5, out=torch.empty_like(p)).mul_(classes).sum(dim, keepdim=True).long()
            p_c = p.gather(dim, c)
        one_minus_p_c = p.scatter_(dim, c, 0).sum(dim, keepdim=True)
        p.scatter_(dim, c, p_c)
        nll_c = (one_minus_p_c / p_c).log1p_()
        nll.scatter_(dim, c, nll_c if small else torch.where(p_c < _TINY, nll.gather(dim, c), nll_c))
        one_minus_p.scatter_(dim, c, one_minus_p_c)
    value, slope = value_and_slope(nll, one_minus_p, p, *plan.polynomial, scale=plan.scale)
    losses = value.mul_(shares).sum(dim, keepdim=True)
    if not plan.read or math.isnan(losses.sum().item()):  # from 0 * inf, or from NaN logits
        nll = -drop_impossible(-nll, shares)
        value, slope = value_and_slope(nll, one_minus_p, p, *plan.polynomial, scale=plan.scale)
        losses = value.mul_(shares).sum(dim, keepdim=True)
    if log_p is not None:
        torch.neg(nll, out=log_p)
    b = slope.mul_(shares)  # b_k = s_k A_k
    if c is None:
        p.mul_(b.sum(dim, keepdim=True)).sub_(b)  # dx_k = P_k sum_j b_j - b_k
        return losses
    b_c = b.gather(dim, c)
    b_others = b.scatter_(dim, c, 0).sum(dim, keepdim=True)
    dx_c = (p_c * b_others).addcmul_(one_minus_p_c, b_c, value=-1)  # dx_c = P_c sum_{k != c} b_k - (1 - P_c) b_c
    p.mul_(b_others.add_(b_c)).sub_(b).scatter_(dim, c, dx_c)  # the others as above
    return losses
