"""The value that belongs to the best checkpoint of a run."""

from typing import Generic, TypeVar

import lightning.pytorch as pl

T = TypeVar("T")


class AtBest(Generic[T]):
    """Keeps the latest value, and the one that was the latest when the best checkpoint was saved."""

    def __init__(self, value: T) -> None:
        self.latest = self.at_best = value
        self.found = False  # whether a checkpoint has been called best
        self._best: tuple[str, float] | None = None

    def start(self, trainer: pl.Trainer) -> None:
        """Note the best checkpoint of the run that is resumed, whose value is not known."""
        self._best = _best_checkpoint(trainer)

    def add(self, trainer: pl.Trainer, value: T) -> None:
        """Keep the value of a validation that has just ended."""
        # Checkpoints are saved after `on_validation_end`, so one that is new now was saved after the previous one.
        self.look(trainer)
        self.latest = value

    def look(self, trainer: pl.Trainer) -> None:
        """Look for a new best checkpoint."""
        best = _best_checkpoint(trainer)
        if best is not None and best != self._best:
            self._best, self.at_best, self.found = best, self.latest, True


def _best_checkpoint(trainer: pl.Trainer) -> tuple[str, float] | None:
    """Return path and score of the best checkpoint, or None if no checkpoint has a score."""
    path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    score = getattr(trainer.checkpoint_callback, "best_model_score", None)
    return (path, float(score)) if path and score is not None else None
