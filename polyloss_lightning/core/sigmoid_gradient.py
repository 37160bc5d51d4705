r"""Sigmoid losses with their gradients in closed form.

With p = sigmoid(x), q the target, V and A the value and the slope of the polynomial at p and at 1 - p, and a and b the
weights of the positive and the negative entry, the loss and its derivative are

.. math:: a V(p) + b V(1-p), \qquad b p A(1-p) - a (1-p) A(p)

A target of 0 or 1 has one entry only: that of y x with y = 1 - 2q, of which 1 - Pt = sigmoid(y x).
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from polyloss_lightning.core.entries import Entries, drop_impossible
from polyloss_lightning.core.polynomial import Polynomial, power_and_slope, value_and_slope


def value_and_gradient(
    input: Tensor,
    target: Tensor,
    polynomial: Polynomial,
    dtype: torch.dtype,
    scale: float = 1.0,
    out: Tensor | None = None,
    observed: Entries | None = None,
    *,
    weight: Tensor | None,
    ignore_index: int,
    pos_weight: Tensor | None = None,
    alpha: Tensor | float | None = None,
    focal: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Compute the loss of each element and its gradient.

    Args:
        input: logits.
        target: one target per element, or one class index per sample.
        polynomial: as ``dtype``, ``scale``, ``out`` and ``observed``, see ``Softmax.value_and_gradient``.
        dtype: dtype of the computation.
        scale: factor of the gradient.
        out: receives the gradient.
        observed: receives log-probabilities and weights.
        weight: factor of each element.
        ignore_index: elements with this target do not count.
        pos_weight: factor of the positives.
        alpha: weight of the positives against that of the negatives; None weighs neither.
        focal: whether gamma acts on one ``1 - Pt`` per element, ``q (1 - p) + (1 - q) p``.

    Returns:
        The loss of each element; the derivative of the sum of all by the logits, times ``scale``; and the number of
        elements that count, None if all do.
    """
    # Reading a value costs nothing on the CPU, unless the operations are being recorded.
    read = input.is_cpu and not is_in_torch_dispatch_mode()
    q, ignored, hard = _targets(input, target, ignore_index, dtype, read)
    x = input.to(dtype)
    factors = [] if weight is None else [weight.to(dtype)]
    if alpha is not None:  # alpha q + (1 - alpha)(1 - q)
        alpha = alpha.to(dtype) if isinstance(alpha, Tensor) else alpha
        factors.append((q * (2 * alpha - 1)).add_(1 - alpha))
    if ignored is not None:
        x = x.masked_fill(ignored, 0)
        factors.append((~ignored).to(dtype))
    positive = None if pos_weight is None else pos_weight.to(dtype)
    out = out if out is not None and out.dtype is dtype else torch.empty_like(x)
    if hard:
        value, slope, log_larger = _one_entry(x, q, polynomial, out)
    else:
        value, slope, log_larger = _two_entries(x, q, positive, polynomial, focal, read, out)
    if observed is not None:
        _observe(observed, x, q, log_larger, positive, factors, ignored, read)
    if hard and positive is not None:
        factors.append((q * (positive - 1)).add_(1))
    for factor in factors:
        value, slope = value.mul_(factor), slope.mul_(factor)
    if scale != 1:
        slope.mul_(scale)
    return value, slope, None if ignored is None else (~ignored).sum().to(dtype)


def _targets(
    input: Tensor, target: Tensor, ignore_index: int, dtype: torch.dtype, read: bool
) -> tuple[Tensor, Tensor | None, bool]:
    """Return the target of each element, which are ignored (None if none is), and whether all are 0 or 1 for sure."""
    if target.shape != input.shape:
        class_dim = min(1, input.dim() - 1)
        index = target.long().unsqueeze(class_dim)
        ignored = index == ignore_index
        q = torch.zeros_like(input, dtype=dtype).scatter_(class_dim, index.masked_fill(ignored, 0), 1)
        if read and not ignored.any():
            return q, None, True
        return q.mul_(~ignored), ignored.expand_as(input), True
    q = target.to(dtype)
    if not read:
        ignored = q == ignore_index
        return q.masked_fill(ignored, 0), ignored, False
    if _are_zero_or_one(q) and ignore_index not in (0, 1):
        return q, None, True
    ignored = q == ignore_index
    if not ignored.any():
        return q, None, False
    q = q.masked_fill(ignored, 0)
    return q, ignored, _are_zero_or_one(q)


def _are_zero_or_one(q: Tensor) -> bool:
    # q - q^2 is rounded to 0 for 0 and 1 only.
    return torch.addcmul(q, q, q, value=-1).abs_().sum().item() == 0


def _sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return log(sigmoid(|x|)), that of the larger of both probabilities, and sigmoid(x), with all their digits."""
    s = x.abs().neg_().sigmoid_()
    positive = torch.gt(x, 0, out=torch.empty_like(x))
    # s, or 1 - s if x > 0; `where` costs five times as much
    p = torch.rsub(positive, 1, alpha=2).mul_(s).add_(positive)
    return s.neg_().log1p_(), p


def _one_entry(x: Tensor, q: Tensor, polynomial: Polynomial, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the loss of targets of 0 and 1, and its derivative; also return log(sigmoid(|x|))."""
    y = torch.rsub(q, 1, alpha=2)
    x = x * y
    log_larger, one_minus_pt = _sigmoid(x)
    pt = one_minus_pt  # Poly-1 cross-entropy does not need it
    if polynomial.num_terms is not None:  # the slope is a multiple of Pt, so it needs the digits of a small one
        pt = torch.sigmoid(-x)
    elif not polynomial.is_poly1():
        pt = torch.rsub(one_minus_pt, 1)
    nll = x.relu_().sub_(log_larger)  # -log sigmoid(-x) = max(x, 0) - log sigmoid(|x|)
    value, slope = value_and_slope(nll, one_minus_pt, pt, *polynomial)
    return value, torch.mul(slope.mul_(one_minus_pt), y, out=out), log_larger  # dx = y (1 - Pt) A


def _two_entries(
    x: Tensor, q: Tensor, pos_weight: Tensor | None, polynomial: Polynomial, focal: bool, read: bool, out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the loss of any targets, and its derivative; also return log(sigmoid(|x|))."""
    log_larger, p = _sigmoid(x)
    n = torch.sigmoid(-x)
    a, b = q if pos_weight is None else q * pos_weight, torch.rsub(q, 1)
    nll_p, nll_n = (-x).relu_().sub_(log_larger), x.relu().sub_(log_larger)
    if not read or x.abs().max().item() == torch.inf:
        nll_p, nll_n = -drop_impossible(-nll_p, a), -drop_impossible(-nll_n, b)
    epsilon, gamma, num_terms = polynomial
    inner = 0.0 if focal else gamma
    value_p, slope_p = value_and_slope(nll_p, n, p, epsilon, inner, num_terms)
    value_n, slope_n = value_and_slope(nll_n, p, n, epsilon, inner, num_terms)
    value = value_p.mul_(a).add_(value_n.mul_(b))
    slope = torch.sub(slope_n.mul_(b).mul_(p), slope_p.mul_(a).mul_(n), out=out)  # dx = b p A(1 - p) - a (1 - p) A(p)
    if focal and gamma != 0:
        # The loss is m^gamma V with m = q (1 - p) + (1 - q) p, and dm/dx = (1 - 2q) p (1 - p).
        power, power_slope = power_and_slope(torch.addcmul(q * n, 1 - q, p), gamma)
        slope.mul_(power).add_(torch.rsub(q, 1, alpha=2).mul_(p).mul_(n).mul_(power_slope).mul_(value))
        value.mul_(power)
    return value, slope, log_larger


def _observe(
    observed: Entries,
    x: Tensor,
    q: Tensor,
    log_larger: Tensor,
    pos_weight: Tensor | None,
    factors: list[Tensor],
    ignored: Tensor | None,
    read: bool,
) -> None:
    """Fill in log-probability and weight of the positive and the negative entry of each element."""
    torch.add(log_larger, x.clamp_max(0), out=observed.log_p[0])  # log sigmoid(x) = log sigmoid(|x|) + min(x, 0)
    torch.sub(log_larger, x.clamp_min(0), out=observed.log_p[1])
    shares = q if pos_weight is None else q * pos_weight, torch.rsub(q, 1)
    for log_p, weight, share in zip(observed.log_p, observed.weight, shares, strict=True):
        weight.copy_(share)
        for factor in factors:
            weight.mul_(factor)
        if not read or log_p.min().item() == -torch.inf:
            log_p.copy_(drop_impossible(log_p, weight))
        if ignored is not None:
            log_p.masked_fill_(ignored, 0)
    if observed.focal_base is not None:
        p = x.sigmoid()
        torch.add(q * torch.sigmoid(-x), torch.rsub(q, 1).mul_(p), out=observed.focal_base[0])
