r"""The polynomial family that every loss belongs to; it contains gamma and the epsilons, and nothing of logits.

.. math:: \ell(P_t) = (1-P_t)^\gamma \Big(-\log P_t + \sum_{j=1}^N \epsilon_j (1-P_t)^j\Big)
          = \sum_{j \ge 1} \Big(\tfrac 1 j + \epsilon_j\Big) (1-P_t)^{j+\gamma}

:func:`value` is this formula as code. :func:`value_and_slope` adds its derivative in closed form.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from polyloss_lightning.checks import as_number


class Polynomial(NamedTuple):
    """One member of the family; the functions of this module take it unpacked, as in ``value(log_p, *polynomial)``.

    Attributes:
        epsilon: perturbation of the first coefficients, one number each.
        gamma: focusing exponent, at least 0.
        num_terms: keep only the first terms of the series; None keeps all.
    """

    epsilon: Sequence[float]
    gamma: float = 0.0
    num_terms: int | None = None

    def is_poly1(self) -> bool:
        """Return True for Poly-1 cross-entropy: one epsilon, no gamma, all terms."""
        return len(self.epsilon) == 1 and self.gamma == 0 and self.num_terms is None


def as_epsilon(epsilon: float | Sequence[float]) -> tuple[float, ...]:
    """Validate ``epsilon`` and return it as one float per perturbed coefficient.

    Raises:
        TypeError: if an entry is not a real number (tensors and booleans are not).
        ValueError: if an entry is NaN or infinite, or the sequence is empty.

    Example:
        >>> as_epsilon(2), as_epsilon([1.0, -0.5])
        ((2.0,), (1.0, -0.5))
    """
    given: object = epsilon  # a value from YAML or a notebook may not match the annotation
    entries = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if not entries:
        raise ValueError("`epsilon` must hold at least one number, got an empty sequence")
    kind, within = "a finite number or a sequence of them", "finite (the paper's range is -1 and above)"
    return tuple([as_number("epsilon", entry, kind, within, shown=given) for entry in entries])


def check_num_terms(num_terms: int | None, epsilon: Sequence[float]) -> None:
    """Raise unless ``num_terms`` is None or an integer that keeps every coefficient that ``epsilon`` changes."""
    if num_terms is None:
        return
    given: object = num_terms
    if isinstance(given, bool) or not isinstance(given, Integral) or num_terms < 1:
        raise ValueError(f"`num_terms` must be None (the whole series) or an integer of at least 1, got {given!r}")
    if num_terms < len(epsilon):
        raise ValueError(
            f"`num_terms` must be at least the number of epsilons ({len(epsilon)}), got {num_terms}: "
            "the terms beyond it are dropped, and their epsilons would have no effect"
        )


def as_gamma(gamma: float) -> float:
    """Return ``gamma`` as a float; raise unless it is a finite number of at least 0."""
    return as_number("gamma", gamma, *["a finite number of at least 0"] * 2, at_least=0)


def coefficients(num_terms: int, epsilon: Sequence[float] = ()) -> list[float]:
    r"""Coefficients :math:`1/j + \epsilon_j` of the first ``num_terms`` powers :math:`(1-P_t)^{j+\gamma}`.

    Example:
        >>> coefficients(3, [1.0])
        [2.0, 0.5, 0.3333333333333333]
    """
    return [1.0 / j + (epsilon[j - 1] if j <= len(epsilon) else 0.0) for j in range(1, num_terms + 1)]


def value(
    log_p: Tensor,
    epsilon: Sequence[float],
    gamma: float = 0.0,
    num_terms: int | None = None,
    focal_base: Tensor | None = None,
    one_minus_p: Tensor | None = None,
) -> Tensor:
    r"""Value :math:`(1-P_t)^\gamma \big(-\log P_t + \sum_j \epsilon_j (1-P_t)^j\big)` of each entry.

    It is finite if ``log_p`` is, and so are its first two derivatives.

    Args:
        log_p: log-probability :math:`\log P_t \le 0` of each entry, any shape, float32 or float64.
        epsilon: perturbation of the first coefficients, one number each.
        gamma: focusing exponent, at least 0.
        num_terms: keep only the first terms of the series; None keeps all.
        focal_base: the :math:`1-P_t` that is raised to ``gamma``, if it differs from that of ``log_p``.
        one_minus_p: the :math:`1-P_t` of ``log_p``, if it was computed already.

    Returns:
        Tensor of the shape of ``log_p``.

    Example:
        >>> value(torch.tensor([0.5]).log(), [1.0])
        tensor([1.1931])
    """
    if one_minus_p is None:
        # 1 - exp(log_p) has lost every digit at log_p = -1e-8; expm1 keeps them all.
        one_minus_p = -torch.expm1(log_p)
    if num_terms is None:
        unfocused = one_minus_p * _horner(epsilon, one_minus_p) - log_p
    else:
        unfocused = one_minus_p * _horner(coefficients(num_terms, epsilon), one_minus_p)
    return unfocused if gamma == 0 else _power(one_minus_p if focal_base is None else focal_base, gamma) * unfocused


def value_and_slope(
    nll: Tensor,
    one_minus_p: Tensor,
    p: Tensor,
    epsilon: Sequence[float],
    gamma: float = 0.0,
    num_terms: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Value :math:`V` of the polynomial for each entry, and its slope :math:`A = -\partial V / \partial \log P_t`.

    With :math:`u = 1 - P_t` and, if ``num_terms`` is given, :math:`c_j = 1/j + \epsilon_j`:

    .. math::
        V &= -\log P_t + u \sum_j \epsilon_j u^{j-1}, & A &= u + P_t (1 + \sum_j j \epsilon_j u^{j-1}) \\
        V &= u \sum_j c_j u^{j-1}, & A &= P_t \sum_j j c_j u^{j-1}

    and gamma takes :math:`A` to :math:`u^\gamma A + \gamma u^{\gamma-1} P_t V` and :math:`V` to :math:`u^\gamma V`.

    Args:
        nll: negative log-likelihood :math:`-\log P_t` of each entry.
        one_minus_p: :math:`1-P_t` of each entry, with all its digits.
        p: :math:`P_t` of each entry, with all its digits; Poly-1 cross-entropy does not need it.
        epsilon: perturbation of the first coefficients; see :func:`value`.
        gamma: focusing exponent.
        num_terms: number of terms kept.

    Example:
        >>> p = torch.tensor([0.5])
        >>> value_and_slope(-p.log(), 1 - p, p, [1.0])
        (tensor([1.1931]), tensor([1.5000]))
    """
    if num_terms is None and len(epsilon) == 1:  # in one operation each
        value = torch.add(nll, one_minus_p, alpha=epsilon[0])
        slope = torch.rsub(one_minus_p, 1 + epsilon[0], alpha=epsilon[0])  # = u + P (1 + eps), with P = 1 - u
    elif num_terms is None:
        value = nll + one_minus_p * _horner(epsilon, one_minus_p)
        times_j = [1 + epsilon[0], *(j * e for j, e in enumerate(epsilon[1:], start=2))]
        # 1 is written as u + P: for epsilon -1 the slope begins with u itself, of which 1 - P would lose the digits.
        slope = one_minus_p + p * _horner(times_j, one_minus_p)
    else:
        kept = coefficients(num_terms, epsilon)
        value = one_minus_p * _horner(kept, one_minus_p)
        slope = p * _horner([j * c for j, c in enumerate(kept, start=1)], one_minus_p)
    if gamma != 0:
        power, power_slope = power_and_slope(one_minus_p, gamma)
        slope = slope.mul_(power).add_(power_slope.mul_(p).mul_(value))
        value = value.mul_(power)
    return value, slope


def power_and_slope(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    r""":math:`x^\gamma` for x in [0, 1], and its derivative :math:`\gamma x^{\gamma-1}`, which is finite at 0 too."""
    power = _power(x, gamma)
    if gamma == int(gamma):
        return power, gamma * _power(x, gamma - 1) if gamma > 1 else torch.ones_like(x)
    return power, (gamma * power).div_(_above_zero(x))


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
        epsilon: perturbation of the first coefficients; see :func:`value`.
        gamma: focusing exponent.
        focal_base: the :math:`1-P_t` that is raised to ``gamma``.

    Returns:
        Tensor of shape ``(num_terms, *log_p.shape)``; the rest of :func:`value` is the tail.

    Example:
        >>> terms(torch.tensor([0.5]).log(), 3).squeeze()
        tensor([0.5000, 0.1250, 0.0417])
    """
    one_minus_p = -torch.expm1(log_p)
    power = one_minus_p
    if gamma != 0:
        power = power * _power(one_minus_p if focal_base is None else focal_base, gamma)
    rows = []
    for coefficient in coefficients(num_terms, epsilon):
        rows.append(coefficient * power)
        power = power * one_minus_p
    return torch.stack(rows)


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor | float:
    """``c[0] + c[1] x + c[2] x^2 + ...``, or the plain float ``c[0]`` if that is all."""
    result: Tensor | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result


def _above_zero(x: Tensor) -> Tensor:
    return x.clamp_min(torch.finfo(x.dtype).tiny)


def _power(x: Tensor, exponent: float) -> Tensor:
    """``x ** exponent`` for x in [0, 1] and a positive exponent, with finite derivatives."""
    whole = int(exponent)
    if exponent == whole:
        return x if exponent == 1 else x.pow(whole)
    # x ** 0.5 has an infinite slope at 0, and 0 times that is NaN. Written with the logarithm, the slope is the power
    # times 1 / x and finite. The whole part is split off because exp is many times slower where it underflows.
    root = ((exponent - whole) * _above_zero(x).log()).exp()
    return root * x.pow(whole) if whole else root


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
        return first / (_horner(slopes, one_minus_p) + torch.zeros_like(one_minus_p))
    # The terms beyond the kept ones are those of -log Pt. With the denominator written as u + Pt (first + ...), nothing
    # cancels as Pt nears 1.
    pt = log_p.exp()
    rest: Tensor | float = _horner([first] + [e * (j + gamma) for j, e in enumerate(epsilon[1:], start=2)], one_minus_p)
    if gamma != 0:
        # Pt log Pt is 0 at Pt = 0; -1e4 stands in for log 0, for exp(-1e4) is 0 in float64 too.
        surplus = -log_p.clamp_min(-1e4) / _above_zero(one_minus_p) - 1
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
