"""The interface of every schedule."""

from abc import ABC, abstractmethod
from typing import TypeAlias

Value: TypeAlias = float | tuple[float, ...]


class Schedule(ABC):
    """A value as a pure function of the progress ``t``, which runs from 0 to 1.

    A schedule does not depend on the Trainer. Its caller decides which parts of a run correspond to 0 and 1
    (:class:`~polyloss_lightning.callbacks.EpsilonScheduler` does so with ``interval``, ``begin`` and ``end``). The
    schedules of this package are frozen dataclasses, so they can be compared, printed, copied and pickled, and
    configured in YAML by their arguments. To write your own, derive from this class and define :meth:`value_at`.

    Example:
        >>> class Square(Schedule):
        ...     def value_at(self, t):
        ...         return t * t
        >>> Square()(0.5)
        0.25
    """

    def __call__(self, t: float) -> Value:
        """Return the value at progress ``t``.

        Args:
            t: progress, in [0, 1].

        Returns:
            A float, or a tuple of floats if the schedule was built from sequences (Poly-N).

        Raises:
            ValueError: if ``t`` is outside of [0, 1].
        """
        if not 0 <= t <= 1:
            raise ValueError(f"a schedule is a function of t in [0, 1], got {t!r}")
        return self.value_at(t)

    @abstractmethod
    def value_at(self, t: float) -> Value:
        """Return the value at ``t``, which is guaranteed to be in [0, 1]."""
