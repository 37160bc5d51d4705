"""Several schedules in sequence."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from polyloss_lightning.schedules.base import Schedule, Value
from polyloss_lightning.schedules.values import as_fractions, as_value, check_same_length


@dataclass(frozen=True)
class JoinedSchedule(Schedule):
    r"""Several schedules in sequence, each going through its whole range of t between two boundaries.

    With :math:`b_0 = 0`, :math:`b_n = 1` and the boundaries between them, in the piece :math:`b_i \le t < b_{i+1}`:

    .. math:: \epsilon(t) = \text{schedule}_i\Big(\frac{t - b_i}{b_{i+1} - b_i}\Big)

    A boundary belongs to the schedule that begins there. At t = 1 the last schedule is evaluated at exactly 1. The
    value is continuous at a boundary only if the two schedules have the same value there.

    Args:
        schedules: one or more schedules, whose values all have the same length.
        boundaries: strictly increasing fractions in (0, 1), one fewer than schedules.

    Raises:
        TypeError: if an entry is not a schedule, or a boundary not a number.
        ValueError: if the numbers of schedules and boundaries do not match, the boundaries are not increasing
            fractions, or the lengths differ.

    Example:
        >>> from polyloss_lightning.schedules import ConstantSchedule, LinearSchedule
        >>> schedule = JoinedSchedule([ConstantSchedule(-1.0), LinearSchedule(-1.0, 2.0)], boundaries=[0.5])
        >>> schedule(0.2), schedule(0.5), schedule(0.75), schedule(1.0)
        (-1.0, -1.0, 0.5, 2.0)
    """

    schedules: Sequence[Schedule]
    boundaries: Sequence[float]

    def __post_init__(self) -> None:
        given: object = self.schedules
        if not isinstance(given, Sequence) or not all(isinstance(entry, Schedule) for entry in given):
            raise TypeError(f"`schedules` must be a sequence of schedules, got {given!r}")
        boundaries = as_fractions("boundaries", self.boundaries, closed=False)
        if len(given) != len(boundaries) + 1:
            raise ValueError(
                f"`schedules` must have one entry more than `boundaries`, got {len(given)} schedules "
                f"and {len(boundaries)} boundaries"
            )
        check_same_length(
            **{f"schedules[{i}]": as_value(f"schedules[{i}](0)", entry(0.0)) for i, entry in enumerate(given)}
        )
        object.__setattr__(self, "schedules", tuple(given))
        object.__setattr__(self, "boundaries", boundaries)

    def value_at(self, t: float) -> Value:
        """Return the value of the schedule that is active at ``t``."""
        knots = (0.0, *self.boundaries, 1.0)
        piece = bisect_right(self.boundaries, t)
        begin, end = knots[piece], knots[piece + 1]
        return self.schedules[piece]((t - begin) / (end - begin))
