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
        if not math.isfinite(entry):
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


def value(log_p: Tensor, epsilon: Sequence[float], gamma: float = 0.0, num_terms: int | None = None) -> Tensor:
    r"""Value of the polynomial for each entry; differentiable, and finite wherever ``log_p`` is.

    Args:
        log_p: log-probability :math:`\log P_t \le 0` of each entry, any shape, float32 or float64.
        epsilon: perturbation of the first coefficients, one number each.
        gamma: focusing exponent, at least 0.
        num_terms: keep only the first terms of the series; None keeps all.

    Returns:
        Tensor of the shape of ``log_p``.

    Example:
        >>> value(torch.tensor([0.5]).log(), [1.0])
        tensor([1.1931])
    """
    # 1 - exp(log_p) has lost every digit at log_p = -1e-8; expm1 keeps them all.
    miss = -torch.expm1(log_p)
    if num_terms is not None:
        return _power(miss, 1 + gamma) * _horner(coefficients(num_terms, epsilon), miss)
    if gamma == 0:
        return miss * _horner(epsilon, miss) - log_p
    # (1-Pt)^g alone has an infinite slope at Pt = 1 for g < 1. Its product with -log Pt has none: written
    # as (1-Pt)^(1+g) times -log Pt / (1-Pt), which tends to 1, every factor has a finite derivative.
    return _power(miss, 1 + gamma) * (-log_p / _above_zero(miss) + _horner(epsilon, miss))


def terms(log_p: Tensor, num_terms: int, epsilon: Sequence[float] = (), gamma: float = 0.0) -> Tensor:
    r"""The first ``num_terms`` terms :math:`(1/j + \epsilon_j)(1-P_t)^{j+\gamma}` of each entry.

    Returns:
        Tensor of shape ``(num_terms, *log_p.shape)``; what is left to :func:`value` is the tail.

    Example:
        >>> terms(torch.tensor([0.5]).log(), 3).squeeze()
        tensor([0.5000, 0.1250, 0.0417])
    """
    miss = -torch.expm1(log_p)
    power = _power(miss, 1 + gamma)
    rows = []
    for coefficient in coefficients(num_terms, epsilon):
        rows.append(coefficient * power)
        power = power * miss
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
    """``x ** exponent`` for x in [0, 1], with derivatives of every order finite at x = 0."""
    return x if exponent == 1 else _above_zero(x).pow(exponent)
