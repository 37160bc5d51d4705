"""The callback that stores the validation metrics of the best checkpoint."""

from lightning.pytorch import Callback, LightningModule, Trainer


class BestValidation(Callback):
    """Stores the metrics of the validation after which the best checkpoint was saved."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}
        self._at_best: dict[str, float] = {}
        self._best: tuple[str, float] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the metrics of this validation."""
        if not trainer.sanity_checking:
            # Checkpoints are saved after this hook, so one that is new now was saved after the previous validation.
            self._note_best(trainer)
            metrics = trainer.callback_metrics.items()
            self._latest = {name: float(value) for name, value in metrics if name.startswith("val")}

    def metrics(self, trainer: Trainer) -> tuple[dict[str, float], str]:
        """Return the metrics of the best checkpoint, or the last ones if there is none, and which of these they are."""
        self._note_best(trainer)
        return (self._latest, "last epoch") if self._best is None else (self._at_best, "best checkpoint")

    def _note_best(self, trainer: Trainer) -> None:
        path = getattr(trainer.checkpoint_callback, "best_model_path", "")
        score = getattr(trainer.checkpoint_callback, "best_model_score", None)
        if path and score is not None and self._best != (path, float(score)):
            self._best, self._at_best = (path, float(score)), self._latest
