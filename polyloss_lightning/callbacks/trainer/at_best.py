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
        """Take the best checkpoint of a resumed run for an old one, whose value is not known."""
        path = getattr(trainer.checkpoint_callback, "best_model_path", "")
        score = getattr(trainer.checkpoint_callback, "best_model_score", None)
        self._best = (path, float(score)) if path and score is not None else None

    def add(self, trainer: pl.Trainer, value: T) -> None:
        """Keep the value of a validation that has just ended."""
        # Checkpoints are saved after `on_validation_end`, so one that is new now was saved after the previous one.
        self.look(trainer)
        self.latest = value

    def look(self, trainer: pl.Trainer) -> None:
        """Look for a new best checkpoint."""
        path = getattr(trainer.checkpoint_callback, "best_model_path", "")
        score = getattr(trainer.checkpoint_callback, "best_model_score", None)
        if path and score is not None and self._best != (path, float(score)):
            self._best, self.at_best, self.found = (path, float(score)), self.latest, True
