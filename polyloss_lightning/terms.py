"""The terms of the polynomial one by one, and the gradient of the first: what metrics and figures show."""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyloss_lightning.core.polynomial import above_zero, coefficients, horner, power


def terms(
    log_p: Tensor,
    num_terms: int,
    epsilon: Sequence[float] = (),
    gamma: float = 0.0,
    focal_base: Tensor | None = None,
) -> Tensor:
    r"""The first ``num_terms`` terms :math:`(1/j + \epsilon_j)(1-P_t)^{j+\gamma}` of each entry.

    Args:
        log_p: log-probability of each entry.
        num_terms: number of terms.
        epsilon: perturbation of the first coefficients; see :func:`~polyloss_lightning.core.polynomial.value`.
        gamma: focusing exponent.
        focal_base: the :math:`1-P_t` that is raised to ``gamma``.

    Returns:
        Tensor of shape ``(num_terms, *log_p.shape)``; the rest of the loss is the tail.

    Example:
        >>> terms(torch.tensor([0.5]).log(), 3).squeeze()
        tensor([0.5000, 0.1250, 0.0417])
    """
    one_minus_p = -torch.expm1(log_p)
    raised = one_minus_p
    if gamma != 0:
        raised = raised * power(one_minus_p if focal_base is None else focal_base, gamma)
    rows = []
    for coefficient in coefficients(num_terms, epsilon):
        rows.append(coefficient * raised)
        raised = raised * one_minus_p
    return torch.stack(rows)


def first_term_share(
    log_p: Tensor, epsilon: Sequence[float], gamma: float = 0.0, num_terms: int | None = None
) -> Tensor:
    r"""The first term's share of the gradient :math:`-\partial\ell/\partial P_t` of each entry.

    With :math:`c_j = 1/j + \epsilon_j` and :math:`u = 1 - P_t`:

    .. math:: \frac{c_1 (1+\gamma)}{\sum_j c_j (j+\gamma) u^{j-1}}
        = \frac{c_1 (1+\gamma) P_t}{1 - \gamma P_t \log P_t / u + P_t \sum_{j \le N} \epsilon_j (j+\gamma) u^{j-1}}

    and the right side holds for the whole series. For Poly-1 cross-entropy it is
    :math:`(1+\epsilon) P_t / (1 + \epsilon P_t)`, for cross-entropy :math:`P_t` itself. It is not a share if a
    coefficient is negative, and it is 0 if the first one is 0, even at Pt = 1, where all other terms vanish too.

    Args:
        log_p: log-probability :math:`\log P_t \le 0` of each entry, any shape, float32 or float64; may be ``-inf``.
        epsilon: perturbation of the first coefficients, one number each.
        gamma: focusing exponent, at least 0.
        num_terms: number of terms that the loss keeps; None for the whole series.

    Returns:
        Tensor of the shape of ``log_p``, in [0, 1]; NaN if a coefficient :math:`1/j + \epsilon_j` is negative.

    Example:
        >>> first_term_share(torch.tensor([0.2, 0.8]).log(), [0.0])
        tensor([0.2000, 0.8000])
        >>> first_term_share(torch.tensor([0.2, 0.8]).log(), [2.0])
        tensor([0.4286, 0.9231])
    """
    kept = coefficients(num_terms or len(epsilon), epsilon)
    if min(kept) < 0:
        return torch.full_like(log_p, torch.nan)
    if kept[0] == 0:
        return torch.zeros_like(log_p)
    one_minus_p = -torch.expm1(log_p)
    first = kept[0] * (1 + gamma)
    slopes = [coefficient * (j + gamma) for j, coefficient in enumerate(kept, start=1)]
    if num_terms is not None:
        return first / (horner(slopes, one_minus_p) + torch.zeros_like(one_minus_p))
    # The terms beyond the kept ones are those of -log Pt. With the denominator written as u + Pt (first + ...), nothing
    # cancels as Pt nears 1.
    pt = log_p.exp()
    rest: Tensor | float = horner([first] + [e * (j + gamma) for j, e in enumerate(epsilon[1:], start=2)], one_minus_p)
    if gamma != 0:
        # Pt log Pt is 0 at Pt = 0; -1e4 stands in for log 0, for exp(-1e4) is 0 in float64 too.
        surplus = -log_p.clamp_min(-1e4) / above_zero(one_minus_p) - 1
        rest = rest + gamma * surplus.clamp_min(0)
    return first * pt / (one_minus_p + pt * rest)


def first_term_gradient(log_p: Tensor, epsilon: Sequence[float], gamma: float = 0.0) -> Tensor:
    r"""Magnitude :math:`|1+\epsilon_1| (1+\gamma) (1-P_t)^\gamma` of the first term's gradient in :math:`P_t`.

    For gamma 0 it does not depend on :math:`P_t`: summed over a batch it counts class occurrences.

    Example:
        >>> first_term_gradient(torch.tensor([0.2, 0.8]).log(), [1.0], gamma=2.0)
        tensor([3.8400, 0.2400])
    """
    size = abs(1 + epsilon[0]) * (1 + gamma)
    if gamma == 0:
        return torch.full_like(log_p, size)
    return size * (-torch.expm1(log_p)).clamp_min(0).pow(gamma)
