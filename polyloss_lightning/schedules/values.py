"""Validation of and interpolation between the values of a schedule, which are single numbers or tuples."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

from polyloss_lightning._checks import as_number, as_numbers
from polyloss_lightning.schedules.base import Value


def as_value(name: str, value: object) -> Value:
    """Return ``value`` as a float, or as a nonempty tuple of floats if it is a sequence.

    Raises:
        TypeError: if it is neither a real number nor a sequence of real numbers.
        ValueError: if a number is NaN or infinite, or if the sequence is empty.
    """
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    return as_numbers(name, value) if is_sequence else as_number(name, value)


def as_fractions(name: str, fractions: object, *, closed: bool) -> tuple[float, ...]:
    """Return ``fractions`` as a tuple; raise unless they increase strictly in (0, 1), or in (0, 1] if ``closed``."""
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
    """Raise ``ValueError`` unless all values are single numbers, or all are sequences of the same length."""
    lengths = {name: len(value) if isinstance(value, tuple) else None for name, value in values.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"`{n}` {'a number' if k is None else f'{k} in a sequence'}" for n, k in lengths.items())
        raise ValueError(f"all values of a schedule must have the same number of entries, got {found}")


def elementwise(
    function: Callable[[float, float], float], first: float | Sequence[float], second: float | Sequence[float]
) -> Value:
    """Apply ``function`` to two numbers, or to each pair of entries of two sequences of the same length."""
    if isinstance(first, Sequence) and isinstance(second, Sequence):
        return tuple(function(a, b) for a, b in zip(first, second, strict=True))
    return function(cast(float, first), cast(float, second))


def interpolate(init_value: float | Sequence[float], end_value: float | Sequence[float], share: float) -> Value:
    """Interpolate from ``init_value`` (share 0) to ``end_value`` (share 1), exact at the ends and never beyond them."""
    return elementwise(lambda a, b: clamp((1 - share) * a + share * b, a, b), init_value, end_value)


def clamp(number: float, a: float, b: float) -> float:
    """Return ``number``, or the nearer of ``a`` and ``b`` if a rounding error has put it outside of their interval."""
    return min(max(number, min(a, b)), max(a, b))
