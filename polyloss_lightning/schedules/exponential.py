"""A schedule that decays or grows exponentially from one value to another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from polyloss_lightning._checks import as_number
from polyloss_lightning.schedules.base import Schedule, Value
from polyloss_lightning.schedules.values import (
    as_value,
    check_same_length,
    clamp,
    elementwise,
    interpolate,
)

LARGEST_RATE = 700.0  # exp of a larger number overflows; a schedule this steep is practically a jump anyway


@dataclass(frozen=True)
class ExponentialSchedule(Schedule):
    r"""An exponential curve from ``init_value`` to ``end_value``.

    Without ``rate`` the curve is geometric, which requires two nonzero values of the same sign:

    .. math:: \epsilon(t) = \text{init}\,(\text{end} / \text{init})^t

    With ``rate`` it connects any two values, and the distance to its asymptote is multiplied by
    :math:`e^{-\text{rate}}` from t = 0 to t = 1. The geometric form is the special case with rate
    :math:`\ln(\text{init} / \text{end})`.

    .. math:: \epsilon(t) = \text{init}
              + (\text{end} - \text{init})\,\frac{1 - e^{-\text{rate}\,t}}{1 - e^{-\text{rate}}}

    Args:
        init_value: value at t = 0, a finite number or a sequence of them (Poly-N).
        end_value: value at t = 1, of the same length.
        rate: None for the geometric form, otherwise a nonzero number in [-700, 700]. If it is positive, the value
            changes fastest at the start; if negative, at the end. (Use :class:`LinearSchedule` for a rate of 0.)

    Raises:
        TypeError: if an argument is not numeric.
        ValueError: if an argument is not finite, if ``rate`` is out of range, if the lengths differ, or if the
            geometric form is used with a value of 0 or with values of different signs.

    Example:
        >>> round(ExponentialSchedule(init_value=4.0, end_value=1.0)(0.5), 12)
        2.0
        >>> schedule = ExponentialSchedule(init_value=-1.0, end_value=2.0, rate=5.0)
        >>> schedule(0.0), round(schedule(0.5), 4), schedule(1.0)
        (-1.0, 1.7724, 2.0)
    """

    init_value: float | Sequence[float]
    end_value: float | Sequence[float]
    rate: float | None = None

    def __post_init__(self) -> None:
        init, end = as_value("init_value", self.init_value), as_value("end_value", self.end_value)
        check_same_length(init_value=init, end_value=end)
        object.__setattr__(self, "init_value", init)
        object.__setattr__(self, "end_value", end)
        if self.rate is None:
            elementwise(_check_same_sign, init, end)
            return
        rate = as_number("rate", self.rate)
        if rate == 0 or abs(rate) > LARGEST_RATE:
            raise ValueError(
                f"`rate` must be in [-{LARGEST_RATE:g}, {LARGEST_RATE:g}] and not 0 (a LinearSchedule), "
                f"got {self.rate!r}"
            )
        object.__setattr__(self, "rate", rate)

    def value_at(self, t: float) -> Value:
        """Return the value at ``t``, exact at both ends."""
        if self.rate is None:
            return elementwise(lambda a, b: _geometric(a, b, t), self.init_value, self.end_value)
        return interpolate(self.init_value, self.end_value, math.expm1(-self.rate * t) / math.expm1(-self.rate))


def _check_same_sign(init: float, end: float) -> float:
    if init == 0 or end == 0 or (init > 0) != (end > 0):
        raise ValueError(
            "`init_value` and `end_value` of an exponential schedule without `rate` must have the same sign and not "
            f"be 0, got {init:g} and {end:g}; give `rate` (for example 5.0) to connect any two values"
        )
    return init


def _geometric(init: float, end: float, t: float) -> float:
    return clamp(math.copysign(abs(init) ** (1 - t) * abs(end) ** t, init), init, end)
