"""The callback that stores the validation metrics of the best checkpoint."""

from typing import TypeAlias

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from polyloss_lightning.callbacks.trainer.at_best import AtBest

Results: TypeAlias = tuple[dict[str, float], dict[str, Tensor]]


class BestValidation(Callback):
    """Stores the metrics of the validation after which the best checkpoint was saved."""

    def __init__(self) -> None:
        self._results: AtBest[Results] = AtBest(({}, {}))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the best checkpoint of the run that is resumed."""
        self._results.start(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the metrics of this validation."""
        if not trainer.sanity_checking:
            metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val")}
            vectors: dict[str, dict[str, Tensor]] = getattr(pl_module, "class_results", {})
            self._results.add(trainer, (metrics, dict(vectors.get("val", {}))))

    def results(self, trainer: Trainer) -> tuple[dict[str, float], dict[str, Tensor], str]:
        """Return metrics and values of classes at the best checkpoint, or the last ones, and which these are."""
        self._results.look(trainer)
        if self._results.found:
            return (*self._results.at_best, "best checkpoint")
        return (*self._results.latest, "last epoch")
