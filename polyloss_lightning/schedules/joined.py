"""Several schedules, one after the other."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from polyloss_lightning.schedules.base import Schedule, Value
from polyloss_lightning.schedules.values import as_fractions, as_value, check_same_length


@dataclass(frozen=True)
class JoinedSchedule(Schedule):
    r"""``schedules[i]`` from ``boundaries[i - 1]`` to ``boundaries[i]``, each over its own whole t.

    With :math:`b_0 = 0` and a last :math:`b_n = 1`, in the piece :math:`b_i \le t < b_{i+1}`:

    .. math:: \epsilon(t) = \text{schedule}_i\Big(\frac{t - b_i}{b_{i+1} - b_i}\Big)

    A boundary belongs to the schedule that begins there, and t = 1 to the last one at its own t of exactly 1. Join
    at equal values where nothing should jump.

    Args:
        schedules: one or more schedules, whose values have one length.
        boundaries: one fewer, strictly increasing fractions in (0, 1).

    Raises:
        TypeError: if an entry is not a schedule, or a boundary not a number.
        ValueError: if the counts do not fit, the boundaries are not increasing fractions, or the lengths differ.

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
                f"`schedules` must be one more than the boundaries between them, got {len(given)} schedules "
                f"and {len(boundaries)} boundaries"
            )
        check_same_length(
            **{f"schedules[{i}]": as_value(f"schedules[{i}](0)", entry(0.0)) for i, entry in enumerate(given)}
        )
        object.__setattr__(self, "schedules", tuple(given))
        object.__setattr__(self, "boundaries", boundaries)

    def value_at(self, t: float) -> Value:
        """The value of the schedule whose piece ``t`` is in."""
        knots = (0.0, *self.boundaries, 1.0)
        piece = bisect_right(self.boundaries, t)
        begin, end = knots[piece], knots[piece + 1]
        return self.schedules[piece]((t - begin) / (end - begin))
