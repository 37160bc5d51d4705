"""The callback that stores the validation metrics of the best checkpoint."""

from typing import TypeAlias

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

Results: TypeAlias = tuple[dict[str, float], dict[str, Tensor]]


class BestValidation(Callback):
    """Stores the metrics of the validation after which the best checkpoint was saved."""

    def __init__(self) -> None:
        self._latest: Results = ({}, {})
        self._at_best: Results = ({}, {})
        self._best: tuple[str, float] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the metrics of this validation."""
        if not trainer.sanity_checking:
            # Checkpoints are saved after this hook, so one that is new now was saved after the previous validation.
            self._note_best(trainer)
            metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val")}
            vectors: dict[str, dict[str, Tensor]] = getattr(pl_module, "class_results", {})
            self._latest = (metrics, dict(vectors.get("val", {})))

    def results(self, trainer: Trainer) -> tuple[dict[str, float], dict[str, Tensor], str]:
        """Return metrics and values of classes at the best checkpoint, or the last ones, and which these are."""
        self._note_best(trainer)
        if self._best is None:
            return (*self._latest, "last epoch")
        return (*self._at_best, "best checkpoint")

    def _note_best(self, trainer: Trainer) -> None:
        path = getattr(trainer.checkpoint_callback, "best_model_path", "")
        score = getattr(trainer.checkpoint_callback, "best_model_score", None)
        if path and score is not None and self._best != (path, float(score)):
            self._best, self._at_best = (path, float(score)), self._latest
