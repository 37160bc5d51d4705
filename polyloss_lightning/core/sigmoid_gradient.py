r"""Sigmoid losses with their gradients in closed form.

With p = sigmoid(x), q the target, V and A the value and the slope of the polynomial at p and at 1 - p, and a and b the
weights of the positive and the negative entry, the loss and its derivative are

.. math:: a V(p) + b V(1-p), \qquad b p A(1-p) - a (1-p) A(p)

A target of 0 or 1 has one entry only: that of y x with y = 1 - 2q, of which 1 - Pt = sigmoid(y x).

Both functions return the loss of each element, the derivative, log(sigmoid(abs(x))) and the 1 - Pt of focal losses.
``x`` are the logits in the dtype of the computation, ``q`` the targets, and ``out`` receives the gradient.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from polyloss_lightning.core.entries import Entries, Plan, drop_impossible
from polyloss_lightning.core.polynomial import power_and_slope, value_and_slope

Result: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor | None]


def _log_larger(p: Tensor, n: Tensor) -> Tensor:
    """Return the logarithm of the larger of p and n = 1 - p, with all its digits: that of 1 minus the smaller."""
    return torch.minimum(p, n).neg_().log1p_()


def one_entry(x: Tensor, q: Tensor, plan: Plan, out: Tensor) -> Result:
    """Compute the loss of targets of 0 and 1, and its derivative."""
    y = torch.rsub(q, 1, alpha=2)
    x = x * y
    one_minus_pt = torch.sigmoid(x)
    pt = torch.rsub(one_minus_pt, 1)  # the slope of num_terms is a multiple of Pt and needs the digits of a small one
    # -log sigmoid(-x) = max(x, 0) - log sigmoid(|x|). Of 1 - (1 - Pt), digits are lost only where max(x, 0) has them.
    log_larger = _log_larger(one_minus_pt, pt)
    if plan.polynomial.num_terms is not None:
        pt = torch.sigmoid(-x)
    value, slope = value_and_slope(x.relu_().sub_(log_larger), one_minus_pt, pt, *plan.polynomial, scale=plan.scale)
    slope = torch.mul(slope.mul_(one_minus_pt), y, out=out)  # dx = y (1 - Pt) A
    return value, slope, log_larger, one_minus_pt


def two_entries(x: Tensor, q: Tensor, pos_weight: Tensor | None, plan: Plan, focal: bool, out: Tensor) -> Result:
    """Compute the loss of any targets, and its derivative; if ``focal``, gamma acts on q (1 - p) + (1 - q) p."""
    p, n = torch.sigmoid(x), torch.sigmoid(-x)
    log_larger = _log_larger(p, n)
    a, b = q if pos_weight is None else q * pos_weight, torch.rsub(q, 1)
    nll_p, nll_n = (-x).relu_().sub_(log_larger), x.relu().sub_(log_larger)
    if not plan.read or x.abs().max().item() == torch.inf:
        nll_p, nll_n = -drop_impossible(-nll_p, a), -drop_impossible(-nll_n, b)
    epsilon, gamma, num_terms = plan.polynomial
    inner = 0.0 if focal else gamma
    value_p, slope_p = value_and_slope(nll_p, n, p, epsilon, inner, num_terms)
    value_n, slope_n = value_and_slope(nll_n, p, n, epsilon, inner, num_terms)
    value = value_p.mul_(a).add_(value_n.mul_(b))
    slope = torch.sub(slope_n.mul_(b).mul_(p), slope_p.mul_(a).mul_(n), out=out)  # dx = b p A(1 - p) - a (1 - p) A(p)
    base = torch.addcmul(q * n, b, p) if focal else None
    if base is not None and gamma != 0:
        # The loss is m^gamma V with m = q (1 - p) + (1 - q) p, and dm/dx = (1 - 2q) p (1 - p).
        power, power_slope = power_and_slope(base, gamma)
        slope.mul_(power).add_(torch.rsub(q, 1, alpha=2).mul_(p).mul_(n).mul_(power_slope).mul_(value))
        value.mul_(power)
    return value, slope if plan.scale == 1 else slope.mul_(plan.scale), log_larger, base


def observe(
    observed: Entries, x: Tensor, log_larger: Tensor, shares: Sequence[Tensor], ignored: Tensor | None, plan: Plan
) -> None:
    """Fill in log-probability and weight of the positive and the negative entry of each element."""
    torch.add(log_larger, x.clamp_max(0), out=observed.log_p[0])  # log sigmoid(x) = log sigmoid(|x|) + min(x, 0)
    torch.sub(log_larger, x.clamp_min(0), out=observed.log_p[1])
    for log_p, weight, share in zip(observed.log_p, observed.weight, shares, strict=True):
        weight.copy_(share)
        if not plan.read or log_p.min().item() == -torch.inf:
            log_p.copy_(drop_impossible(log_p, weight))
        if ignored is not None:
            log_p.masked_fill_(ignored, 0)
