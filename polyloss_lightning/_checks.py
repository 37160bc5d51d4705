"""Checks of arguments: every message names the argument, the allowed range and the value."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def as_number(
    name: str,
    value: object,
    kind: str = "a finite number",
    within: str = "finite",
    *,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    shown: object = None,
) -> float:
    """Return ``value`` as a float.

    Args:
        name: name of the argument.
        value: what was passed for it.
        kind: what may be passed, for the message about a wrong type.
        within: which numbers may be passed, for the message about a wrong number.
        at_least: lower bound.
        at_most: upper bound.
        shown: what the messages show in the place of ``value``: the sequence that holds it.

    Raises:
        TypeError: if ``value`` is not a real number (tensors and booleans are not).
        ValueError: if it is NaN, infinite or out of bounds.

    Example:
        >>> as_number("gamma", 2, at_least=0)
        2.0
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        got = _short(value if shown is None else shown)
        raise TypeError(f"`{name}` must be {kind}, got {got} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    # Comparisons instead of math.isfinite, which cannot be traced if the number is an argument of a compiled function.
    if not (-math.inf < number < math.inf and at_least <= number <= at_most):
        raise ValueError(f"`{name}` must be {within}, got {_short(value if shown is None else shown)}")
    return number


def _short(value: object) -> str:
    """Return ``repr(value)`` in one line of at most 200 characters."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not print integers of more than 4300 digits
        return "an integer of more than 4300 digits"
    return text if len(text) <= 200 else f"{text[:197]}..."


def as_numbers(name: str, values: object, kind: str = "a sequence of numbers") -> tuple[float, ...]:
    """Return the sequence ``values`` as a tuple of floats.

    Raises:
        TypeError: if ``values`` is not a sequence, or an entry is not a real number.
        ValueError: if it is empty, or an entry is NaN or infinite.

    Example:
        >>> as_numbers("epsilon", [1, -0.5])
        (1.0, -0.5)
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes | bytearray):
        raise TypeError(f"`{name}` must be {kind}, got {values!r} ({type(values).__name__})")
    if not values:
        raise ValueError(f"`{name}` must hold at least one number, got an empty sequence")
    return tuple(as_number(f"{name}[{i}]", value) for i, value in enumerate(values))


def check_integer(name: str, value: object, kind: str = "an integer", *, at_least: float = -math.inf) -> None:
    """Raise unless ``value`` is an integer of at least ``at_least``.

    Raises:
        TypeError: if ``value`` is not an integer (booleans are not).
        ValueError: if it is out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be {kind}, got {value!r} ({type(value).__name__})")
    if value < at_least:
        raise ValueError(f"`{name}` must be {kind}, got {value!r}")


def check_choice(name: str, value: object, choices: Sequence[Any]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {tuple(choices)}, got {value!r}")


def check_choices(name: str, given: object, allowed: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Return ``given`` as a tuple.

    Raises:
        TypeError: if it is not a sequence of strings.
        ValueError: if it contains a string that is not in ``allowed``.
    """
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
        raise TypeError(f"`{name}` must be a sequence of strings, got {given!r}")
    wrong = [one for one in given if allowed is not None and one not in allowed]
    if wrong:
        raise ValueError(f"`{name}` may only contain {list(allowed or ())}, got {wrong}")
    return tuple(given)


def listed(names: Sequence[str], most: int = 20) -> str:
    """Return the first ``names`` for a message, and how many more there are.

    Example:
        >>> listed(["cat", "dog", "owl"], most=2)
        'cat, dog and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
