"""The interface of every schedule."""

from abc import ABC, abstractmethod
from typing import TypeAlias

Value: TypeAlias = float | tuple[float, ...]


class Schedule(ABC):
    """A value as a pure function of the progress ``t``, which runs from 0 to 1.

    A schedule knows no trainer: whoever calls it says where 0 and 1 lie
    (:class:`~polyloss_lightning.callbacks.EpsilonScheduler` does, by ``interval``, ``begin`` and ``end``). The ones
    here are frozen dataclasses: they compare, print, copy and pickle, and their arguments are their YAML. Your own
    derives from this class and defines :meth:`value_at`.

    Example:
        >>> class Square(Schedule):
        ...     def value_at(self, t):
        ...         return t * t
        >>> Square()(0.5)
        0.25
    """

    def __call__(self, t: float) -> Value:
        """The value at progress ``t``.

        Args:
            t: progress, in [0, 1].

        Returns:
            A float, or a tuple of floats where the schedule was built of sequences (Poly-N).

        Raises:
            ValueError: if ``t`` is outside of [0, 1].
        """
        if not 0 <= t <= 1:
            raise ValueError(f"a schedule is a function of t in [0, 1], got {t!r}")
        return self.value_at(t)

    @abstractmethod
    def value_at(self, t: float) -> Value:
        """The value at ``t``, which is in [0, 1]."""
