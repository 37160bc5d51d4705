"""Schedules from one value to another: linear, cosine and polynomial."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from polyloss_lightning._checks import as_number
from polyloss_lightning.schedules.base import Schedule, Value
from polyloss_lightning.schedules.values import as_value, check_same_length, interpolate


@dataclass(frozen=True)
class RampSchedule(Schedule):
    """Base class of schedules from ``init_value`` at t = 0 to ``end_value`` at t = 1; subclasses define the curve."""

    init_value: float | Sequence[float]
    end_value: float | Sequence[float]

    def __post_init__(self) -> None:
        ends = {name: as_value(name, getattr(self, name)) for name in ("init_value", "end_value")}
        check_same_length(**ends)
        for name, value in ends.items():
            object.__setattr__(self, name, value)

    @abstractmethod
    def share(self, t: float) -> float:
        """Return the completed share of the way at ``t``: 0 at t = 0, and 1 at t = 1."""

    def value_at(self, t: float) -> Value:
        """Return ``init_value + (end_value - init_value) * share(t)``, exact at both ends."""
        return interpolate(self.init_value, self.end_value, self.share(t))


@dataclass(frozen=True)
class LinearSchedule(RampSchedule):
    r"""A straight line: :math:`\epsilon(t) = \text{init} + (\text{end} - \text{init})\,t`.

    Args:
        init_value: value at t = 0, a finite number or a sequence of them (Poly-N).
        end_value: value at t = 1, of the same length.

    Raises:
        TypeError: if a value is not numeric.
        ValueError: if a value is not finite, or the lengths differ.

    Example:
        >>> schedule = LinearSchedule(init_value=-1.0, end_value=2.0)
        >>> schedule(0.0), schedule(0.5), schedule(1.0)
        (-1.0, 0.5, 2.0)
        >>> LinearSchedule([0.0, 1.0], [1.0, 0.0])(0.25)
        (0.25, 0.75)
    """

    def share(self, t: float) -> float:
        """Return ``t``."""
        return t


@dataclass(frozen=True)
class CosineSchedule(RampSchedule):
    r"""Half a cosine, flat at both ends.

    .. math:: \epsilon(t) = \text{init} + (\text{end} - \text{init})\,\tfrac{1 - \cos \pi t}{2}

    Args:
        init_value: value at t = 0, a finite number or a sequence of them (Poly-N).
        end_value: value at t = 1, of the same length.

    Raises:
        TypeError: if a value is not numeric.
        ValueError: if a value is not finite, or the lengths differ.

    Example:
        >>> schedule = CosineSchedule(init_value=-1.0, end_value=2.0)
        >>> schedule(0.0), round(schedule(0.25), 4), schedule(1.0)
        (-1.0, -0.5607, 2.0)
    """

    def share(self, t: float) -> float:
        """Return ``(1 - cos(pi t)) / 2``."""
        return (1 - math.cos(math.pi * t)) / 2


@dataclass(frozen=True)
class PolynomialSchedule(RampSchedule):
    r"""A power curve: for a power above 1 it is steep at the start and flat at the end, below 1 the reverse.

    .. math:: \epsilon(t) = \text{end} + (\text{init} - \text{end})\,(1 - t)^{\text{power}}

    Args:
        init_value: value at t = 0, a finite number or a sequence of them (Poly-N).
        end_value: value at t = 1, of the same length.
        power: exponent, above 0; 1 gives a straight line.

    Raises:
        TypeError: if an argument is not numeric.
        ValueError: if an argument is not finite, ``power`` is not above 0, or the lengths differ.

    Example:
        >>> PolynomialSchedule(init_value=2.0, end_value=0.0, power=2.0)(0.5)
        0.5
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        power = as_number("power", self.power)
        if power <= 0:
            raise ValueError(f"`power` must be above 0, got {self.power!r}")
        object.__setattr__(self, "power", power)

    def share(self, t: float) -> float:
        """Return ``1 - (1 - t) ** power``."""
        return 1 - math.pow(1 - t, self.power)
