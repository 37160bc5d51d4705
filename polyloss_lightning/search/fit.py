"""Training and, in the confirm phase, testing of a module in this process."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden

from polyloss_lightning.callbacks import PolynomialTermMonitor
from polyloss_lightning.callbacks.monitor.class_values import given_counts
from polyloss_lightning.callbacks.run_metrics import RunMetrics
from polyloss_lightning.callbacks.trainer.find_losses import find_callbacks


@runtime_checkable
class Trainable(Protocol):
    """What an objective may return instead of a number: something that trains itself."""

    def run(self, *, test: bool) -> Fitted:
        """Train, and also test if requested and possible."""


class Fit(NamedTuple):
    """What an objective returns for its module to be trained.

    Attributes:
        module: the module.
        data: a data module, or a dictionary with the dataloaders ``train``, ``val`` and ``test``; None if the module
            has its own.
        trainer: the Trainer. The metrics are those of the checkpoint that its ModelCheckpoint calls best, or of the
            last epoch if it has none.
    """

    module: LightningModule
    data: LightningDataModule | dict[str, Any] | None
    trainer: Trainer

    def run(self, *, test: bool) -> Fitted:
        """Train, and also test if requested and possible."""
        return run_fit(self, test=test)


class Fitted(NamedTuple):
    """The metrics of a trained module, its metrics by epoch, and the class counts of its data."""

    metrics: dict[str, float]
    history: dict[str, list[float]]
    class_counts: list[float]


def run_fit(fit: Fit, *, test: bool) -> Fitted:
    """Train a module, and also test it if requested and possible.

    Args:
        fit: module, data and Trainer.
        test: also compute the metrics of the test part, with the weights of the best checkpoint.
    """
    module, data, trainer = fit
    recorders = [callback for callback in trainer.callbacks if isinstance(callback, RunMetrics)]  # type: ignore[attr-defined]
    recorder = recorders[0] if recorders else RunMetrics()
    if not recorders:
        # After the callbacks that log metrics, and before those that save checkpoints, which Lightning keeps last.
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        saving = (index for index, callback in enumerate(callbacks) if isinstance(callback, Checkpoint))
        callbacks.insert(next(saving, len(callbacks)), recorder)
    for monitor in find_callbacks(trainer, PolynomialTermMonitor):
        monitor.figures = False  # which take longer than some runs
        monitor.record = monitor.record and bool(trainer.loggers)  # otherwise all runs would write the same file
    loaders: dict[str, Any] = {}
    if isinstance(data, dict):
        loaders = {"train_dataloaders": data.get("train"), "val_dataloaders": data.get("val")}
    elif data is not None:
        loaders = {"datamodule": data}
    trainer.fit(module, **loaders)
    metrics = recorder.best(trainer)
    if test and has_test_part(module, data):
        checkpoint = trainer.checkpoint_callback
        best = checkpoint.best_model_path if isinstance(checkpoint, ModelCheckpoint) else ""
        tested: dict[str, Any] = {"dataloaders": data["test"]} if isinstance(data, dict) else loaders
        # The checkpoint was written by this process a moment ago, so it may contain any object.
        options: dict[str, Any] = {"ckpt_path": best, "weights_only": False} if best else {}
        trainer.test(module, verbose=False, **tested, **options)
        metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Fitted(metrics, recorder.history, given_counts(trainer) or [])


def has_test_part(module: LightningModule, data: LightningDataModule | dict[str, Any] | None) -> bool:
    """Return whether ``module`` can be tested on ``data``."""
    if not is_overridden("test_step", module):
        return False
    if isinstance(data, dict):
        return data.get("test") is not None
    return is_overridden("test_dataloader", module if data is None else data)
