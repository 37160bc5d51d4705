r"""The polynomial family that every loss belongs to; it contains gamma and the epsilons, and nothing of logits.

.. math:: \ell(P_t) = (1-P_t)^\gamma \Big(-\log P_t + \sum_{j=1}^N \epsilon_j (1-P_t)^j\Big)
          = \sum_{j \ge 1} \Big(\tfrac 1 j + \epsilon_j\Big) (1-P_t)^{j+\gamma}

:func:`value` is this formula as code. :func:`value_and_slope` adds its derivative in closed form.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from polyloss_lightning._checks import as_number, check_integer

_TEXT = (str, bytes, bytearray)  # sequences, but not of numbers


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
    entries = tuple(given) if isinstance(given, Sequence) and not isinstance(given, _TEXT) else (given,)
    if not entries:
        raise ValueError("`epsilon` must hold at least one number, got an empty sequence")
    kind, within = "a finite number or a sequence of them", "finite (the paper's range is -1 and above)"
    return tuple([as_number("epsilon", entry, kind, within, shown=given) for entry in entries])


def check_num_terms(num_terms: int | None, epsilon: Sequence[float]) -> None:
    """Raise unless ``num_terms`` is None or an integer that keeps every coefficient that ``epsilon`` changes."""
    if num_terms is None:
        return
    check_integer("num_terms", num_terms, "None (the whole series) or an integer of at least 1", at_least=1)
    if num_terms < len(epsilon):
        raise ValueError(
            f"`num_terms` must be at least the number of epsilons ({len(epsilon)}), got {num_terms}: "
            "the terms beyond it are dropped, and their epsilons would have no effect"
        )


def warn_of_sign_flip(old: Sequence[float], new: Sequence[float], stacklevel: int = 4) -> None:
    """Warn once when a coefficient turns negative, not again on every step of a schedule that is below already."""
    for j, epsilon in enumerate(new, start=1):
        already = len(old) >= j and old[j - 1] < -1 / j
        if epsilon < -1 / j and not already:
            effect = (
                f"right answers with Pt > {-1 / epsilon:.3g} are pushed away, and more of them with gamma or num_terms"
                if len(new) == 1
                else f"term {j} rewards a lower Pt"
            )
            warnings.warn(
                f"epsilon {epsilon:g} is below {-1 / j:g}, so coefficient {j} of the polynomial is negative: {effect}",
                stacklevel=stacklevel,
            )


def as_gamma(gamma: float) -> float:
    """Return ``gamma`` as a float; raise unless it is a finite number of at least 0."""
    return as_number("gamma", gamma, *["a finite number of at least 0"] * 2, at_least=0)


def as_polynomial(epsilon: float | Sequence[float], gamma: float = 0.0, num_terms: int | None = None) -> Polynomial:
    """Return the polynomial of these numbers; raise if one of them is out of its range."""
    polynomial = Polynomial(as_epsilon(epsilon), as_gamma(gamma), num_terms)
    check_num_terms(num_terms, polynomial.epsilon)
    return polynomial


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

    It is finite if ``log_p`` is, and so are its first two derivatives. ``log_p`` is :math:`\log P_t \le 0`, any shape,
    float32 or float64. ``focal_base`` is the :math:`1-P_t` that is raised to ``gamma``, and ``one_minus_p`` any other
    :math:`1-P_t`; both are computed from ``log_p`` if they are None. The other arguments are those of
    :class:`Polynomial`.

    Example:
        >>> value(torch.tensor([0.5]).log(), [1.0])
        tensor([1.1931])
    """
    if one_minus_p is None:
        # 1 - exp(log_p) has lost every digit at log_p = -1e-8; expm1 keeps them all.
        one_minus_p = -torch.expm1(log_p)
    if num_terms is None:
        unfocused = one_minus_p * horner(epsilon, one_minus_p) - log_p
    else:
        unfocused = one_minus_p * horner(coefficients(num_terms, epsilon), one_minus_p)
    return unfocused if gamma == 0 else power(one_minus_p if focal_base is None else focal_base, gamma) * unfocused


def value_and_slope(
    nll: Tensor,
    one_minus_p: Tensor,
    p: Tensor,
    epsilon: Sequence[float],
    gamma: float = 0.0,
    num_terms: int | None = None,
    *,
    scale: float = 1.0,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Value :math:`V` of the polynomial for each entry, and its slope :math:`A = -\partial V / \partial \log P_t`.

    With :math:`u = 1 - P_t` and, if ``num_terms`` is given, :math:`c_j = 1/j + \epsilon_j`:

    .. math::
        V &= -\log P_t + u \sum_j \epsilon_j u^{j-1}, & A &= u + P_t (1 + \sum_j j \epsilon_j u^{j-1}) \\
        V &= u \sum_j c_j u^{j-1}, & A &= P_t \sum_j j c_j u^{j-1}

    and gamma takes :math:`A` to :math:`u^{\gamma-1} (u A + \gamma P_t V)` and :math:`V` to :math:`u^\gamma V`.

    ``nll`` is :math:`-\log P_t` of each entry. ``p`` and ``one_minus_p`` must have all their digits; Poly-1
    cross-entropy does not need ``p``. ``scale`` is a factor of the slope. The value of Poly-1 is written to ``out``,
    which may be ``nll``.

    Example:
        >>> p = torch.tensor([0.5])
        >>> value_and_slope(-p.log(), 1 - p, p, [1.0])
        (tensor([1.1931]), tensor([1.5000]))
    """
    if num_terms is None and len(epsilon) == 1:  # in one operation each
        value = torch.add(nll, one_minus_p, alpha=epsilon[0], out=out)
        early = scale if gamma == 0 else 1.0
        # = scale (u + P (1 + eps)), with P = 1 - u
        slope = torch.rsub(one_minus_p, (1 + epsilon[0]) * early, alpha=epsilon[0] * early)
        scale /= early
    elif num_terms is None:
        value = nll + one_minus_p * horner(epsilon, one_minus_p)
        times_j = [1 + epsilon[0], *(j * e for j, e in enumerate(epsilon[1:], start=2))]
        # 1 is written as u + P: for epsilon -1 the slope begins with u itself, of which 1 - P would lose the digits.
        slope = one_minus_p + p * horner(times_j, one_minus_p)
    else:
        kept = coefficients(num_terms, epsilon)
        value = one_minus_p * horner(kept, one_minus_p)
        slope = p * horner([j * c for j, c in enumerate(kept, start=1)], one_minus_p)
    if gamma != 0:
        lower = lower_power(one_minus_p, gamma)
        slope = slope.mul_(one_minus_p).addcmul_(p, value, value=gamma).mul_(lower)
        value = value.mul_(one_minus_p * lower)
    return value, slope if scale == 1 else slope.mul_(scale)


def lower_power(x: Tensor, gamma: float) -> Tensor | float:
    r""":math:`x^{\gamma-1}` for x in [0, 1], finite at 0 too; :math:`\gamma` times that is the slope of the power."""
    if gamma == 1:
        return 1.0
    return power(x, gamma - 1) if gamma > 1 else power(x, gamma).div_(above_zero(x))


def horner(coefficients: Sequence[float], x: Tensor) -> Tensor | float:
    """``c[0] + c[1] x + c[2] x^2 + ...``, or the plain float ``c[0]`` if that is all."""
    result: Tensor | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result


def above_zero(x: Tensor) -> Tensor:
    """Return ``x``, at least the smallest normal number, so that it has a logarithm and a reciprocal."""
    return x.clamp_min(torch.finfo(x.dtype).tiny)


def power(x: Tensor, exponent: float) -> Tensor:
    """``x ** exponent`` for x in [0, 1] and a positive exponent, with finite derivatives."""
    whole = int(exponent)
    if exponent == whole:
        return x if exponent == 1 else x.pow(whole)
    # x ** 0.5 has an infinite slope at 0, and 0 times that is NaN. Written with the logarithm, the slope is the power
    # times 1 / x and finite. The whole part is split off because exp is many times slower where it underflows.
    root = ((exponent - whole) * above_zero(x).log()).exp()
    return root * x.pow(whole) if whole else root
