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
        target: one target per element, or one class index per sample; both were checked.
        polynomial: epsilon, gamma and the number of terms.
        dtype: dtype of the computation.
        out: receives the gradient if it has that dtype.
        observed: its tensors receive the log-probabilities and weights of the entries.
        weight: factor of each element.
        ignore_index: elements with this target do not count.
        pos_weight: factor of the positives.
        alpha: weight of the positives against that of the negatives; None weighs neither.
        focal: whether gamma acts on one ``1 - Pt`` per element, ``q (1 - p) + (1 - q) p``.

    Returns:
        The loss of each element; the derivative of the sum of all by the logits; and the number of elements that count,
        None if all do.
    """
    x, counted = input.to(dtype), None
    # Reading a value costs nothing on the CPU, unless the operations are being recorded.
    read = input.is_cpu and not is_in_torch_dispatch_mode()
    q, ignored, hard = _targets(input, target, ignore_index, dtype, read)
    if ignored is not None:
        x, counted = x.masked_fill(ignored, 0), (~ignored).to(dtype)
    factors = [] if weight is None else [weight.to(dtype)]
    if alpha is not None:
        alpha = alpha.to(dtype) if isinstance(alpha, Tensor) else alpha
        factors.append(torch.add(1 - alpha, q * (2 * alpha - 1)))  # alpha q + (1 - alpha)(1 - q)
    if counted is not None:
        factors.append(counted)
    factor = None
    for each in factors:
        factor = each if factor is None else factor * each
    positive = None if pos_weight is None else pos_weight.to(dtype)
    if observed is not None:
        _observe(observed, x, q, factor, positive, counted)
    if hard:
        value, slope = _one_entry(x, q, polynomial)
        if positive is not None:
            factor = 1 + (positive - 1) * q if factor is None else (1 + (positive - 1) * q) * factor
    else:
        value, slope = _two_entries(x, q, positive, polynomial, focal, read)
    if factor is not None:
        value, slope = value.mul_(factor), slope.mul_(factor)
    return value, slope, None if counted is None else counted.sum()


def _targets(input: Tensor, target: Tensor, ignore_index: int, dtype: torch.dtype, read: bool) -> tuple[Tensor, Tensor | None, bool]:
    """Return the target of each element, which are ignored (None if none is), and whether all are 0 or 1 for sure."""
    if target.shape != input.shape:
        class_dim = min(1, input.dim() - 1)
        index = target.long().unsqueeze(class_dim)
        ignored = index == ignore_index
        one_hot = torch.zeros_like(input, dtype=dtype).scatter_(class_dim, index.masked_fill(ignored, 0), 1)
        if read and not ignored.any():
            return one_hot, None, True
        return one_hot.mul_(~ignored), ignored.expand_as(input), True
    q = target.to(dtype)
    if not read:
        ignored = q == ignore_index
        return q.masked_fill(ignored, 0), ignored, False
    lowest, highest = (bound.item() for bound in q.aminmax())
    ignored = None
    if lowest <= ignore_index <= highest:
        ignored = q == ignore_index
        q = q.masked_fill(ignored, 0)
        lowest, highest = (bound.item() for bound in q.aminmax())
    # In [0, 1] no q (1 - q) is negative, so their sum is 0 if and only if all of them are.
    return q, ignored, 0 <= lowest and highest <= 1 and (q * (1 - q)).sum().item() == 0


def _both_sides(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log(1 + exp(-|x|)), sigmoid(x) and sigmoid(-x), each with all its digits."""
    s = torch.sigmoid(x.abs().neg_())
    positive = torch.gt(x, 0, out=torch.empty_like(x))
    turn = 1 - 2 * positive
    p = torch.addcmul(positive, turn, s)  # s, or 1 - s if x > 0
    one_minus_p = (1 - positive).addcmul_(turn, s, value=-1)  # 1 - s, or s if x > 0
    return s.neg_().log1p_().neg_(), p, one_minus_p  # log(1 + exp(-|x|)) = -log(1 - s)


def _one_entry(x: Tensor, q: Tensor, polynomial: Polynomial) -> tuple[Tensor, Tensor]:
    """Compute the loss of targets of 0 and 1, and its derivative."""
    y = 1 - 2 * q
    x = x * y
    small, one_minus_pt, pt = _both_sides(x)
    nll = small.add_(x.relu_())  # -log sigmoid(-x) = max(x, 0) + log(1 + exp(-|x|))
    value, slope = value_and_slope(nll, one_minus_pt, pt, *polynomial)
    return value, slope.mul_(one_minus_pt).mul_(y)  # dx = y (1 - Pt) A


def _two_entries(
    x: Tensor, q: Tensor, pos_weight: Tensor | None, polynomial: Polynomial, focal: bool, read: bool
) -> tuple[Tensor, Tensor]:
    """Compute the loss of any targets, and its derivative."""
    small, p, n = _both_sides(x)
    a, b = q if pos_weight is None else q * pos_weight, 1 - q
    nll_p, nll_n = small + (-x).relu_(), small + x.relu()
    if not read or x.abs().max().item() == torch.inf:
        nll_p, nll_n = -drop_impossible(-nll_p, a), -drop_impossible(-nll_n, b)
    epsilon, gamma, num_terms = polynomial
    inner = 0.0 if focal else gamma
    value_p, slope_p = value_and_slope(nll_p, n, p, epsilon, inner, num_terms)
    value_n, slope_n = value_and_slope(nll_n, p, n, epsilon, inner, num_terms)
    slope = slope_n.mul_(b).mul_(p) - slope_p.mul_(a).mul_(n)  # dx = b p A(1 - p) - a (1 - p) A(p)
    value = value_p.mul_(a).add_(value_n.mul_(b))
    if focal and gamma != 0:
        # The loss is m^gamma V with m = q (1 - p) + (1 - q) p, and dm/dx = (1 - 2q) p (1 - p).
        power, power_slope = power_and_slope(q * n + (1 - q) * p, gamma)
        slope = power * slope + (1 - 2 * q) * p * n * power_slope * value
        value = power * value
    return value, slope


def _observe(
    observed: Entries, x: Tensor, q: Tensor, factor: Tensor | None, pos_weight: Tensor | None, counted: Tensor | None
) -> None:
    """Fill in log-probability and weight of the positive and the negative entry of each element."""
    small, p, n = _both_sides(x)
    shares = q if pos_weight is None else q * pos_weight, 1 - q
    for side, (log_p, share) in enumerate(zip((-small - (-x).relu_(), -small - x.relu()), shares, strict=True)):
        weight = share if factor is None else share * factor
        log_p = drop_impossible(log_p, weight)
        observed.log_p[side] = log_p if counted is None else log_p * counted
        observed.weight[side] = weight
    if observed.focal_base is not None:
        torch.addcmul(q * n, 1 - q, p, out=observed.focal_base[0])
