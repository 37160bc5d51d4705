r"""The polynomial family every loss here belongs to; knows gamma and the epsilons, nothing of logits.

.. math:: \ell(P_t) = (1-P_t)^\gamma \Big(-\log P_t + \sum_{j=1}^N \epsilon_j (1-P_t)^j\Big)
          = \sum_{j \ge 1} \Big(\tfrac 1 j + \epsilon_j\Big) (1-P_t)^{j+\gamma}
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor


def as_epsilon(epsilon: float | Sequence[float]) -> tuple[float, ...]:
    """Validate ``epsilon`` and return it as one float per perturbed coefficient.

    Args:
        epsilon: a finite number (Poly-1) or a non-empty sequence of finite numbers (Poly-N).

    Raises:
        TypeError: if an entry is not a real number (tensors and booleans are refused too).
        ValueError: if an entry is NaN or infinite, or the sequence is empty.

    Example:
        >>> as_epsilon(2), as_epsilon([1.0, -0.5])
        ((2.0,), (1.0, -0.5))
    """
    given: object = epsilon  # what comes in from YAML or a notebook is not what the annotation promises
    entries = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if not entries:
        raise ValueError("`epsilon` must hold at least one number, got an empty sequence")
    for entry in entries:
        if isinstance(entry, bool) or not isinstance(entry, Real):
            raise TypeError(
                f"`epsilon` must be a finite number or a sequence of them, got {given!r} ({type(entry).__name__})"
            )
        if not -math.inf < float(entry) < math.inf:  # math.isfinite cannot be traced where epsilon is an argument
            raise ValueError(f"`epsilon` must be finite (the paper's range is -1 and above), got {given!r}")
    return tuple(float(entry) for entry in entries)


def check_num_terms(num_terms: int | None, epsilon: Sequence[float]) -> None:
    """Raise unless ``num_terms`` is None or an integer that keeps every coefficient ``epsilon`` changes."""
    given: object = num_terms
    if num_terms is None:
        return
    if isinstance(given, bool) or not isinstance(given, Integral) or num_terms < 1:
        raise ValueError(f"`num_terms` must be None (the whole series) or an integer of at least 1, got {given!r}")
    if num_terms < len(epsilon):
        raise ValueError(
            f"`num_terms` must be at least the number of epsilons ({len(epsilon)}), got {num_terms}: "
            "the terms beyond it are dropped, and their epsilons would have no effect"
        )


def coefficients(num_terms: int, epsilon: Sequence[float] = ()) -> list[float]:
    r"""Coefficients :math:`1/j + \epsilon_j` of the first ``num_terms`` powers :math:`(1-P_t)^{j+\gamma}`.

    Example:
        >>> coefficients(3, [1.0])
        [2.0, 0.5, 0.3333333333333333]
    """
    return [1.0 / j + (epsilon[j - 1] if j <= len(epsilon) else 0.0) for j in range(1, num_terms + 1)]


def check_gamma(gamma: float) -> None:
    """Raise unless ``gamma`` is a finite number of at least 0."""
    given: object = gamma
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(f"`gamma` must be a finite number of at least 0, got {given!r} ({type(given).__name__})")
    if not 0 <= gamma < math.inf:  # math.isfinite cannot be traced where gamma is an argument
        raise ValueError(f"`gamma` must be a finite number of at least 0, got {given!r}")


def value(
    log_p: Tensor,
    epsilon: Sequence[float],
    gamma: float = 0.0,
    num_terms: int | None = None,
    miss: Tensor | None = None,
    u: Tensor | None = None,
) -> Tensor:
    r"""Value of the polynomial for each entry; finite wherever ``log_p`` is, with its first two derivatives.

    Args:
        log_p: log-probability :math:`\log P_t \le 0` of each entry, any shape, float32 or float64.
        epsilon: perturbation of the first coefficients, one number each.
        gamma: focusing exponent, at least 0.
        num_terms: keep only the first terms of the series; None keeps all.
        miss: the :math:`1-P_t` that ``gamma`` acts on, where it is not that of ``log_p``.
        u: the :math:`1-P_t` of ``log_p``, where it is at hand.

    Returns:
        Tensor of the shape of ``log_p``.

    Example:
        >>> value(torch.tensor([0.5]).log(), [1.0])
        tensor([1.1931])
    """
    if u is None:
        # 1 - exp(log_p) has lost every digit at log_p = -1e-8; expm1 keeps them all.
        u = -torch.expm1(log_p)
    if num_terms is None:
        unfocused = u * _horner(epsilon, u) - log_p
    else:
        unfocused = u * _horner(coefficients(num_terms, epsilon), u)
    return unfocused if gamma == 0 else _power(u if miss is None else miss, gamma) * unfocused


def terms(
    log_p: Tensor,
    num_terms: int,
    epsilon: Sequence[float] = (),
    gamma: float = 0.0,
    miss: Tensor | None = None,
) -> Tensor:
    r"""The first ``num_terms`` terms :math:`(1/j + \epsilon_j)(1-P_t)^{j+\gamma}` of each entry.

    Args:
        log_p: log-probability of each entry.
        num_terms: number of terms.
        epsilon: perturbation of the first coefficients, one number each.
        gamma: focusing exponent, at least 0.
        miss: the :math:`1-P_t` that ``gamma`` acts on, where it is not that of ``log_p``.

    Returns:
        Tensor of shape ``(num_terms, *log_p.shape)``; what is left to :func:`value` is the tail.

    Example:
        >>> terms(torch.tensor([0.5]).log(), 3).squeeze()
        tensor([0.5000, 0.1250, 0.0417])
    """
    u = -torch.expm1(log_p)
    power = u if gamma == 0 else u * _power(u if miss is None else miss, gamma)
    rows = []
    for coefficient in coefficients(num_terms, epsilon):
        rows.append(coefficient * power)
        power = power * u
    return torch.stack(rows)


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor | float:
    """``c[0] + c[1] x + c[2] x^2 + ...``, a plain float where there is only ``c[0]``."""
    result: Tensor | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result


def _above_zero(x: Tensor) -> Tensor:
    return x.clamp_min(torch.finfo(x.dtype).tiny)


def _power(x: Tensor, exponent: float) -> Tensor:
    """``x ** exponent`` for x in [0, 1] and a positive exponent, with finite derivatives."""
    if exponent == int(exponent):
        return x if exponent == 1 else x.pow(int(exponent))
    # x ** 0.5 has an infinite slope at 0, which turns into NaN behind a factor of 0. By way of the logarithm the
    # slope is the power times 1 / x, and finite.
    return (exponent * _above_zero(x).log()).exp()


def first_term_share(
    log_p: Tensor, epsilon: Sequence[float], gamma: float = 0.0, num_terms: int | None = None
) -> Tensor:
    r"""The first term's share of the gradient :math:`-\partial\ell/\partial P_t` of each entry.

    With :math:`c_j = 1/j + \epsilon_j` and :math:`u = 1 - P_t`:

    .. math:: \frac{c_1 (1+\gamma)}{\sum_j c_j (j+\gamma) u^{j-1}}
        = \frac{c_1 (1+\gamma) P_t}{1 - \gamma P_t \log P_t / u + P_t \sum_{j \le N} \epsilon_j (j+\gamma) u^{j-1}}

    where the right side holds for the whole series. For Poly-1 cross-entropy it is
    :math:`(1+\epsilon) P_t / (1 + \epsilon P_t)`, for cross-entropy :math:`P_t` itself. It is no share where a
    coefficient is negative, and 0 where the first one is 0, also at Pt = 1, where all other terms vanish too.

    Args:
        log_p: log-probability :math:`\log P_t \le 0` of each entry, any shape, float32 or float64; may be ``-inf``.
        epsilon: perturbation of the first coefficients, one number each.
        gamma: focusing exponent, at least 0.
        num_terms: number of terms that the loss keeps; None for the whole series.

    Returns:
        Tensor of the shape of ``log_p``, in [0, 1]; NaN where a coefficient :math:`1/j + \epsilon_j` is negative.

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
    miss = -torch.expm1(log_p)
    first = kept[0] * (1 + gamma)
    slopes = [coefficient * (j + gamma) for j, coefficient in enumerate(kept, start=1)]
    if num_terms is not None:
        return first / (_horner(slopes, miss) + torch.zeros_like(miss))
    # The terms beyond the kept ones are those of -log Pt. Writing the denominator as u + Pt (first + ...) leaves
    # nothing to cancel as Pt nears 1.
    pt = log_p.exp()
    rest: Tensor | float = _horner([first] + [e * (j + gamma) for j, e in enumerate(epsilon[1:], start=2)], miss)
    if gamma != 0:
        # Pt log Pt is 0 at Pt = 0; -1e4 stands in for log 0, for exp(-1e4) is 0 in float64 too.
        surplus = -log_p.clamp_min(-1e4) / _above_zero(miss) - 1
        rest = rest + gamma * surplus.clamp_min(0)
    return first * pt / (miss + pt * rest)


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
