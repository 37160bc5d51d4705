"""Intervals of paired differences, and the gains that a number of seeds can show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from polyloss_lightning.search.extra import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

POWER = 0.8  # probability with which a gain of the detectable size is seen


def level_of_look(look: int) -> float:
    """Return the two-sided error level of the given look at growing data: 5 percent, and half of it at each later look.

    Raises:
        ValueError: if ``look`` is below 1.

    Example:
        >>> level_of_look(1), level_of_look(2)
        (0.05, 0.025)
    """
    if look < 1:
        raise ValueError(f"`look` must be at least 1, got {look}")
    return 0.05 * 0.5 ** (look - 1)


def paired_interval(
    differences: ArrayLike, level: float = 0.05
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    r"""Compute the mean of paired differences and its confidence interval by Student's t.

    .. math:: \bar d \pm t_{1 - \text{level} / 2,\, n - 1} \frac{s}{\sqrt{n}}

    Args:
        differences: one difference per seed along the last axis, at least 2; further axes are separate experiments.
        level: 1 minus the confidence.

    Returns:
        Mean, lower and upper limit.

    Raises:
        ValueError: if there are fewer than 2 differences.

    Example:
        >>> mean, low, high = paired_interval([1.0, 2.0, 3.0])
        >>> print(f"{mean:.3f} ({low:.3f} to {high:.3f})")
        2.000 (-0.484 to 4.484)
    """
    stats, numpy = _scipy_stats(), _numpy()
    values = numpy.asarray(differences, dtype=float)
    number = values.shape[-1] if values.ndim else 0
    if number < 2:
        raise ValueError(f"an interval needs at least 2 differences, got {number}")
    mean = values.mean(axis=-1)
    half = stats.t.isf(level / 2, number - 1) * values.std(axis=-1, ddof=1) / number**0.5
    return mean, mean - half, mean + half


def detectable_gain(sd: float, seeds: int, level: float = 0.05, power: float = POWER) -> float:
    """Return the true gain that a paired comparison would call "better" with probability ``power``.

    Args:
        sd: standard deviation of the paired differences.
        seeds: number of pairs, at least 2.
        level: two-sided level of the test.
        power: the probability.

    Raises:
        ValueError: if ``seeds`` is below 2.

    Example:
        >>> print(f"{detectable_gain(1.0, 10):.2f}")  # as in tables of the power of the paired t test
        1.00
    """
    if seeds < 2:
        raise ValueError(f"a paired comparison needs at least 2 seeds, got {seeds}")
    stats = _scipy_stats()
    from scipy.optimize import brentq

    limit = float(stats.t.isf(level / 2, seeds - 1))
    # The statistic of a true gain g has a noncentral t distribution with noncentrality g * sqrt(n) / sd.
    with _numpy().errstate(divide="ignore"):  # SciPy 1.13 warns far out in the tails, where the result is right
        shift = brentq(lambda nc: float(stats.nct.sf(limit, seeds - 1, nc)) - power, 0.0, 10.0 * limit)
    return float(shift) * sd / math.sqrt(seeds)


def seeds_needed(sd: float, gain: float, level: float = 0.05, power: float = POWER, most: int = 1_000_000) -> int:
    """Return the smallest number of seeds whose :func:`detectable_gain` is at most ``gain``.

    Args:
        sd: standard deviation of the paired differences.
        gain: the true gain to be seen, above 0.
        level: two-sided level of the test.
        power: probability with which it is to be seen.
        most: upper limit of the result.

    Raises:
        ValueError: if ``gain`` is not above 0.

    Example:
        >>> seeds_needed(1.0, 0.5)
        34
    """
    if not gain > 0:
        raise ValueError(f"`gain` must be above 0, got {gain}")
    low, high = 1, 2  # detectable_gain(high) is tested first, low is known to be too few
    while high < most and detectable_gain(sd, high, level, power) > gain:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if detectable_gain(sd, middle, level, power) > gain:
            low = middle
        else:
            high = middle
    return min(high, most)


def _scipy_stats() -> Any:
    return require("scipy.stats")


def _numpy() -> Any:
    return require("numpy")
