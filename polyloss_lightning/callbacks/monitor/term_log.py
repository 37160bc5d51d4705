"""Logging the values of a step or a pass."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from polyloss_lightning.callbacks.monitor.class_values import check_classes, class_values, counts_seen
from polyloss_lightning.callbacks.trainer.find_losses import Observable
from polyloss_lightning.callbacks.trainer.log_names import Stage, epsilon_values, prefix
from polyloss_lightning.core import polynomial
from polyloss_lightning.metrics import term_names, term_values
from polyloss_lightning.record import ClassRecord, EpochRecord


class TermLog:
    """Logs the values of sums, those in ``prog_bar`` on the progress bar too."""

    def __init__(self, num_terms: int, prog_bar: Sequence[str]) -> None:
        self.num_terms = num_terms
        self.prog_bar = prog_bar
        self.several = False  # whether there are several losses, so that names need the path
        self.forms: dict[str, tuple[float, int | None]] = {}  # latest gamma and number of terms of each loss
        self.class_counts: list[float] | None = None  # number of training samples of each class, if known

    def step(self, pl_module: pl.LightningModule, step: Mapping[str, Tensor]) -> None:
        """Log the values of a training step."""
        if _logs_nowhere(pl_module.trainer):
            return
        for path, sums in step.items():
            values = term_values(sums, self.num_terms)
            for name in term_names(self.num_terms):
                key = f"{prefix('train', path, self.several)}{name}_step"
                shown = name in self.prog_bar
                # Without a batch size, log raises an error in a `training_step(self, dataloader_iter)`.
                pl_module.log(key, values[name], shown, on_step=True, on_epoch=False, batch_size=1)

    def epoch(
        self,
        trainer: pl.Trainer,
        stage: Stage,
        sums: Mapping[str, Tensor],
        losses: Mapping[str, Observable],
        num_classes: int | None,
    ) -> list[EpochRecord]:
        """Log the values of a pass, which are the same on every process, and return what the record stores of it."""
        epochs = []
        for path, loss in losses.items():
            values = term_values(sums[path], self.num_terms, num_classes)
            scalars = {name: float(values[name]) for name in term_names(self.num_terms)}
            vectors = {name: value.tolist() for name, value in values.items() if name not in scalars}
            if not any(vectors["pt_histogram"]):  # the loss was not called, or no target counted
                continue
            start, epsilon = prefix(stage, path, self.several), polynomial.as_epsilon(loss.epsilon)
            logged = {start + name: value for name, value in scalars.items()}
            classes: ClassRecord | None = None
            if num_classes is not None:
                check_classes(vectors)
                if stage == "train" and self.class_counts is None:
                    self.class_counts = counts_seen(vectors, loss)
                logged |= {start + name: v for name, v in class_values(vectors, self.class_counts).items()}
                classes = ClassRecord(*(vectors[f"class_{field.name}"] for field in fields(ClassRecord)))
            if stage == "train":
                logged |= epsilon_values(path, self.several, epsilon)
            if _logs_nowhere(trainer):
                trainer.callback_metrics.update({key: torch.tensor(value) for key, value in logged.items()})
                logged = {}
            for key, value in logged.items():
                shown = key.removeprefix(start) in self.prog_bar
                trainer.lightning_module.log(key, value, shown, on_epoch=True, sync_dist=True, batch_size=1)
            where = (stage, path, trainer.current_epoch, trainer.global_step)
            form = self.forms.get(path, (0.0, None))
            epochs.append(EpochRecord(*where, epsilon, *form, scalars, vectors["pt_histogram"], classes))
        return epochs


def _logs_nowhere(trainer: pl.Trainer) -> bool:
    """Return whether logged values are neither stored nor shown, as in a search, whose runs `log` would slow down."""
    shown = trainer.progress_bar_callback is not None
    return bool(trainer.loggers) and not shown and all(isinstance(logger, DummyLogger) for logger in trainer.loggers)
