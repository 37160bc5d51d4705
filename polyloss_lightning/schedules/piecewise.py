"""A schedule through given points, as steps or as straight lines."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from polyloss_lightning._checks import check_choice
from polyloss_lightning.schedules.base import Schedule, Value
from polyloss_lightning.schedules.values import as_fractions, as_value, check_same_length, interpolate

Interpolation = Literal["step", "linear"]


@dataclass(frozen=True)
class PiecewiseSchedule(Schedule):
    r"""A schedule with ``init_value`` at t = 0 and ``values[i]`` at ``boundaries[i]``.

    With ``"step"`` a value is held from its boundary (inclusive) to the next one. With ``"linear"`` the values are
    connected by straight lines. The last value is held from the last boundary to t = 1.

    Args:
        init_value: value at t = 0, a finite number or a sequence of them (Poly-N).
        boundaries: strictly increasing fractions of the schedule in (0, 1].
        values: one value per boundary, each of the same length as ``init_value``.
        interpolation: ``"step"`` or ``"linear"``.

    Raises:
        TypeError: if an argument is not numeric, or if ``boundaries`` or ``values`` is not a sequence.
        ValueError: if a value is not finite, the boundaries are not increasing fractions, or the lengths differ.

    Example:
        >>> step = PiecewiseSchedule(init_value=-1.0, boundaries=[0.5, 0.8], values=[0.0, 2.0])
        >>> step(0.0), step(0.49), step(0.5), step(1.0)
        (-1.0, -1.0, 0.0, 2.0)
        >>> PiecewiseSchedule(-1.0, [0.5], [1.0], interpolation="linear")(0.25)
        0.0
    """

    init_value: float | Sequence[float]
    boundaries: Sequence[float]
    values: Sequence[float | Sequence[float]]
    interpolation: Interpolation = "step"

    def __post_init__(self) -> None:
        check_choice("interpolation", self.interpolation, get_args(Interpolation))
        boundaries = as_fractions("boundaries", self.boundaries, closed=True)
        given: object = self.values
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise TypeError(f"`values` must be a sequence, got {given!r} ({type(given).__name__})")
        if not boundaries or len(given) != len(boundaries):
            raise ValueError(
                f"`values` must contain one value per boundary, and at least one, got {len(given)} values "
                f"for {len(boundaries)} boundaries"
            )
        init = as_value("init_value", self.init_value)
        values = {f"values[{i}]": as_value(f"values[{i}]", value) for i, value in enumerate(given)}
        check_same_length(init_value=init, **values)
        object.__setattr__(self, "init_value", init)
        object.__setattr__(self, "boundaries", boundaries)
        object.__setattr__(self, "values", tuple(values.values()))

    def value_at(self, t: float) -> Value:
        """Return the value at ``t``."""
        knots = (0.0, *self.boundaries)
        values = (self.init_value, *self.values)
        piece = bisect_right(knots, t) - 1
        if self.interpolation == "step" or piece == len(knots) - 1:
            return cast(Value, values[piece])
        share = (t - knots[piece]) / (knots[piece + 1] - knots[piece])
        return interpolate(values[piece], values[piece + 1], share)
