"""A constant schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from polyloss_lightning.schedules.base import Schedule, Value
from polyloss_lightning.schedules.values import as_value


@dataclass(frozen=True)
class ConstantSchedule(Schedule):
    r"""The same value throughout: :math:`\epsilon(t) = \text{value}`.

    Args:
        value: a finite number, or a sequence of them for Poly-N.

    Raises:
        TypeError: if ``value`` is not numeric.
        ValueError: if it is not finite, or an empty sequence.

    Example:
        >>> ConstantSchedule(2)(0.3)
        2.0
    """

    value: float | Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", as_value("value", self.value))

    def value_at(self, t: float) -> Value:
        """Return ``value``."""
        return cast(Value, self.value)
