"""The callback that keeps the metrics of a run: those of its best checkpoint, and of every epoch."""

import json
import os
from pathlib import Path

import lightning.pytorch as pl
from typing_extensions import override

from polyloss_lightning.callbacks.base import Callback
from polyloss_lightning.callbacks.monitor.class_values import given_counts
from polyloss_lightning.callbacks.trainer.at_best import AtBest


class RunMetrics(Callback):
    """Keeps the metrics of a run.

    Args:
        path: JSON file to which the metrics are written at the end of fit and test; None writes nothing.

    Attributes:
        history: for every scalar the values of all epochs. It is NaN before the first epoch that logs the scalar, and
            an epoch that does not log it repeats the last value. Values of single classes (``..._class/3``) are left
            out.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.path = None if path is None else Path(path)
        self.history: dict[str, list[float]] = {}
        self._metrics: AtBest[dict[str, float]] = AtBest({})
        self._epochs = 0

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._metrics.start(trainer)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._metrics.add(trainer, {name: float(value) for name, value in trainer.callback_metrics.items()})

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, value in trainer.callback_metrics.items():
            if "_class/" not in name and not name.endswith("_step"):
                values = self.history.setdefault(name, [])
                values += [float("nan")] * (self._epochs - len(values))
                values.append(float(value))
        self._epochs += 1

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, self.best(trainer))

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, {name: float(value) for name, value in trainer.callback_metrics.items()})

    def _write(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        if self.path is None or not trainer.is_global_zero:
            return
        contents = {
            "metrics": metrics,
            "history": self.history,
            "class_counts": given_counts(trainer) or [],
            "checkpoint": str(getattr(trainer.checkpoint_callback, "best_model_path", "")),
        }
        self.path.write_text(json.dumps(contents), encoding="utf-8")

    def best(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return the metrics of the best checkpoint, or the last ones if there is none."""
        self._metrics.look(trainer)
        last = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return {**last, **(self._metrics.at_best if self._metrics.found else self._metrics.latest)}
