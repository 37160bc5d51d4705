r"""Sigmoid losses with their gradients in closed form.

With p = sigmoid(x), q the target, V and A the value and the slope of the polynomial at p and at 1 - p, and a and b the
weights of the positive and the negative entry, the loss and its derivative are

.. math:: a V(p) + b V(1-p), \qquad b p A(1-p) - a (1-p) A(p)

A target of 0 or 1 has one entry only: that of y x with y = 1 - 2q, of which 1 - Pt = sigmoid(y x).

Both functions return the loss of each element and the derivative, which is written to ``out`` if that is given. ``q``
are the targets in the dtype of the computation.
"""

import torch
from torch import Tensor

from polyloss_lightning.core.entries import Entries, Plan, drop_impossible
from polyloss_lightning.core.polynomial import lower_power, value_and_slope


def one_entry(x: Tensor, y: Tensor, plan: Plan, out: Tensor | None, observed: Entries | None) -> tuple[Tensor, Tensor]:
    """Compute the loss of targets of 0 and 1, and its derivative; ``y`` is 1 for 0, and -1 for 1."""
    x = x.to(y.dtype) * y
    one_minus_pt = torch.sigmoid(x)
    pt = torch.rsub(one_minus_pt, 1)
    # -log sigmoid(-x) = max(x, 0) - log sigmoid(|x|). Of 1 - (1 - Pt), digits are lost only where max(x, 0) has them.
    poly1 = plan.polynomial.is_poly1()
    log_larger = torch.minimum(one_minus_pt, pt, out=pt if poly1 else None).neg_().log1p_()
    if poly1:  # needs no Pt, whose memory is free now
        pt = one_minus_pt
    elif plan.polynomial.num_terms is not None:  # its slope is a multiple of Pt and needs the digits of a small one
        pt = torch.sigmoid(-x)
    nll = x.relu_().sub_(log_larger)
    del log_larger
    if observed is not None:
        torch.neg(nll, out=observed.log_p)
    value, slope = value_and_slope(nll, one_minus_pt, pt, *plan.polynomial, scale=plan.scale, out=nll)
    slope.mul_(one_minus_pt)
    return value, torch.mul(slope, y, out=slope if out is None else out)  # dx = y (1 - Pt) A


def two_entries(
    x: Tensor, q: Tensor, a: Tensor, b: Tensor, plan: Plan, out: Tensor | None, observed: Entries | None, focal: bool
) -> tuple[Tensor, Tensor]:
    """Compute the loss of any targets, and its derivative; if ``focal``, gamma acts on q (1 - p) + (1 - q) p."""
    x = x.to(q.dtype)
    p, n = torch.sigmoid(x), torch.sigmoid(-x)
    log_larger = torch.minimum(p, n).neg_().log1p_()  # with all its digits: it is 1 minus the smaller
    nll_p, nll_n = (-x).relu_().sub_(log_larger), x.relu().sub_(log_larger)
    if not plan.read or not x.abs().max().item() < torch.inf:
        nll_p, nll_n = -drop_impossible(-nll_p, a), -drop_impossible(-nll_n, b)
    if observed is not None:
        for log_p, nll in zip(observed.log_p, (nll_p, nll_n), strict=True):
            torch.neg(nll, out=log_p)
    epsilon, gamma, num_terms = plan.polynomial
    inner = 0.0 if focal else gamma
    value_p, slope_p = value_and_slope(nll_p, n, p, epsilon, inner, num_terms, out=nll_p)
    value_n, slope_n = value_and_slope(nll_n, p, n, epsilon, inner, num_terms, out=nll_n)
    value = value_p.mul_(a).add_(value_n.mul_(b))
    slope = torch.sub(slope_n.mul_(b).mul_(p), slope_p.mul_(a).mul_(n), out=out)  # dx = b p A(1 - p) - a (1 - p) A(p)
    if focal and gamma != 0:
        # The loss is m^gamma V with m = q (1 - p) + (1 - q) p, and dm/dx = (1 - 2q) p (1 - p).
        base = torch.addcmul(q * n, b, p)
        if observed is not None and observed.focal_base is not None:
            observed.focal_base.copy_(base)
        lower = lower_power(base, gamma)
        power = base * lower
        slope.mul_(power).add_(torch.rsub(q, gamma, alpha=2 * gamma).mul_(p).mul_(n).mul_(lower).mul_(value))
        value.mul_(power)
    return value, slope if plan.scale == 1 else slope.mul_(plan.scale)
