"""From one value to another at a constant rate of decay or growth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from polyloss_lightning.schedules.base import Schedule, Value
from polyloss_lightning.schedules.values import (
    as_number,
    as_value,
    check_same_length,
    clamp,
    elementwise,
    interpolate,
)

LARGEST_RATE = 700.0  # exp of more overflows a float; such a schedule is a jump anyway


@dataclass(frozen=True)
class ExponentialSchedule(Schedule):
    r"""An exponential curve through both ends.

    Without ``rate`` it is geometric, which needs two values of the same sign, neither of them 0:

    .. math:: \epsilon(t) = \text{init}\,(\text{end} / \text{init})^t

    With ``rate`` it connects any two values; the distance to its asymptote shrinks by :math:`e^{-\text{rate}}`
    from t = 0 to t = 1. The geometric form is the special case of rate :math:`\ln(\text{init} / \text{end})`.

    .. math:: \epsilon(t) = \text{init}
              + (\text{end} - \text{init})\,\frac{1 - e^{-\text{rate}\,t}}{1 - e^{-\text{rate}}}

    Args:
        init_value: value at t = 0, a finite number or a sequence of them (Poly-N).
        end_value: value at t = 1, of the same length.
        rate: None for the geometric form, else a number in [-700, 700] other than 0: above 0 the value moves fast
            at first, below 0 fast at the end. (At 0 the curve is a :class:`LinearSchedule`.)

    Raises:
        TypeError: if an argument is not numeric.
        ValueError: if an argument is not finite or ``rate`` out of its range, if the lengths differ, or if the
            geometric form is asked for between values of different signs or from or to 0.

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
        """The curve at ``t``, exact at both ends."""
        if self.rate is None:
            return elementwise(lambda a, b: _geometric(a, b, t), self.init_value, self.end_value)
        return interpolate(self.init_value, self.end_value, math.expm1(-self.rate * t) / math.expm1(-self.rate))


def _check_same_sign(init: float, end: float) -> float:
    if init == 0 or end == 0 or (init > 0) != (end > 0):
        raise ValueError(
            "`init_value` and `end_value` of an exponential schedule without `rate` must have the same sign and not "
            f"be 0, got {init:g} and {end:g}; give `rate` (5.0, say) to connect any two values"
        )
    return init


def _geometric(init: float, end: float, t: float) -> float:
    return clamp(math.copysign(abs(init) ** (1 - t) * abs(end) ** t, init), init, end)
