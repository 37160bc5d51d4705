"""Values of a schedule, one number or several: their validation, and the way from one to another."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Real
from typing import cast

from polyloss_lightning.schedules.base import Value


def as_number(name: str, number: object) -> float:
    """``number`` as a float, or an error that names the argument."""
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"`{name}` must be a finite number, got {number!r} ({type(number).__name__})")
    if not math.isfinite(number):
        raise ValueError(f"`{name}` must be finite, got {number!r}")
    return float(number)


def as_value(name: str, value: object) -> Value:
    """``value`` as a float or as a non-empty tuple of floats, or an error that names the argument."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return as_number(name, value)
    if not value:
        raise ValueError(f"`{name}` must hold at least one number, got an empty sequence")
    return tuple(as_number(f"{name}[{i}]", entry) for i, entry in enumerate(value))


def as_fractions(name: str, fractions: object, *, closed: bool) -> tuple[float, ...]:
    """``fractions`` as a strictly increasing tuple of numbers in (0, 1), or in (0, 1] if ``closed``."""
    if not isinstance(fractions, Sequence) or isinstance(fractions, str):
        raise TypeError(f"`{name}` must be a sequence of numbers, got {fractions!r} ({type(fractions).__name__})")
    numbers = tuple(as_number(f"{name}[{i}]", entry) for i, entry in enumerate(fractions))
    inside = all(0 < number < 1 or (closed and number == 1) for number in numbers)
    if not inside or any(b <= a for a, b in pairwise(numbers)):
        interval = "(0, 1]" if closed else "(0, 1)"
        raise ValueError(
            f"`{name}` must be strictly increasing fractions of the schedule in {interval}, got {fractions!r}"
        )
    return numbers


def check_same_length(**values: Value) -> None:
    """Raise unless the values are all single numbers, or all sequences of one length."""
    lengths = {name: len(value) if isinstance(value, tuple) else None for name, value in values.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"`{n}` {'a number' if k is None else f'{k} in a sequence'}" for n, k in lengths.items())
        raise ValueError(f"all values of a schedule must have the same number of entries, got {found}")


def elementwise(
    function: Callable[[float, float], float], first: float | Sequence[float], second: float | Sequence[float]
) -> Value:
    """``function`` of two numbers, or of each pair of entries of two sequences of one length."""
    if isinstance(first, Sequence) and isinstance(second, Sequence):
        return tuple(function(a, b) for a, b in zip(first, second, strict=True))
    return function(cast(float, first), cast(float, second))


def interpolate(init_value: float | Sequence[float], end_value: float | Sequence[float], share: float) -> Value:
    """The way from ``init_value`` (share 0) to ``end_value`` (share 1): exact at the ends, never outside of them."""
    return elementwise(lambda a, b: clamp((1 - share) * a + share * b, a, b), init_value, end_value)


def clamp(number: float, a: float, b: float) -> float:
    """``number``, or the nearer of ``a`` and ``b`` if it is not between them (by a rounding error)."""
    return min(max(number, min(a, b)), max(a, b))
