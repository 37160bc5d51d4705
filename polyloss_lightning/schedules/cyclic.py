"""A schedule that moves back and forth between two values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

from polyloss_lightning._checks import check_choice
from polyloss_lightning.schedules.base import Schedule, Value
from polyloss_lightning.schedules.values import as_value, check_same_length, interpolate

Shape = Literal["triangle", "cosine"]


@dataclass(frozen=True)
class CyclicSchedule(Schedule):
    r"""A schedule that moves from ``init_value`` to ``peak_value`` and back, ``cycles`` times.

    With :math:`f` the completed fraction of the current cycle, :math:`f = \text{cycles}\cdot t \bmod 1`:

    .. math:: \epsilon(t) = \text{init} + (\text{peak} - \text{init})\,s(f), \quad
              s = 1 - |2 f - 1| \text{ (triangle)} \text{ or } \tfrac{1 - \cos 2 \pi f}{2} \text{ (cosine)}

    Args:
        init_value: value at the ends of each cycle, a finite number or a sequence of them (Poly-N).
        peak_value: value in the middle of each cycle, of the same length; may be lower than ``init_value``.
        cycles: number of cycles, at least 1.
        shape: ``"triangle"`` or ``"cosine"``.

    Raises:
        TypeError: if a value is not numeric.
        ValueError: if a value is not finite, the lengths differ, or an argument is out of range.

    Example:
        >>> schedule = CyclicSchedule(init_value=-1.0, peak_value=2.0, cycles=2)
        >>> [schedule(t) for t in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)]
        [-1.0, 0.5, 2.0, -1.0, 2.0, -1.0]
    """

    init_value: float | Sequence[float]
    peak_value: float | Sequence[float]
    cycles: int = 1
    shape: Shape = "triangle"

    def __post_init__(self) -> None:
        cycles: object = self.cycles
        if isinstance(cycles, bool) or not isinstance(cycles, Integral) or cycles < 1:
            raise ValueError(f"`cycles` must be an integer of at least 1, got {cycles!r}")
        check_choice("shape", self.shape, get_args(Shape))
        init, peak = as_value("init_value", self.init_value), as_value("peak_value", self.peak_value)
        check_same_length(init_value=init, peak_value=peak)
        object.__setattr__(self, "init_value", init)
        object.__setattr__(self, "peak_value", peak)

    def value_at(self, t: float) -> Value:
        """Return the value at ``t``."""
        f = self.cycles * t % 1
        share = 1 - abs(2 * f - 1) if self.shape == "triangle" else (1 - math.cos(2 * math.pi * f)) / 2
        return interpolate(self.init_value, self.peak_value, share)
