"""The files that a monitored run writes next to its logs: the record and its figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from polyloss_lightning.record import EpochRecord, RecordWriter, read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunFiles:
    """The record and figures of one run, written on rank zero only. Without a logger nothing is written."""

    def __init__(self) -> None:
        self._writer: RecordWriter | None = None
        self._opened = False

    def open(self, trainer: pl.Trainer, others: Iterable[RunFiles] = ()) -> None:
        """Begin the record of a new run, or continue that of a resumed one. Call this on every process.

        Args:
            trainer: determines the folder of the logs.
            others: the files of the other monitors of the run. Monitors with the same folder share one record.
        """
        if self._opened:
            return
        self._opened = True
        folder = _log_dir(trainer)
        if folder is None or not trainer.is_global_zero:
            self._writer = None
            return
        for other in others:
            if other._opened and other._writer is not None and other._writer.path.parent == folder:
                self._writer = other._writer
                return
        if self._writer is None or self._writer.path.parent != folder:
            fresh = trainer.state.fn == TrainerFn.FITTING and trainer.global_step == 0
            self._writer = RecordWriter(folder, append=not fresh)

    def close(self) -> None:
        """End the run, so that the next one determines its own folder."""
        self._opened = False

    def write(self, epochs: Iterable[EpochRecord], class_counts: Sequence[float] | None) -> None:
        """Add ``epochs`` to the record."""
        if self._writer is None:
            return
        try:
            self._writer.write(epochs, class_counts)
        except OSError as error:  # a full disk must not end the training
            rank_zero_warn(f"the record of the polynomial terms ends here: {_reason(error)}")
            self._writer = None

    def draw(self, trainer: pl.Trainer) -> None:
        """Write the figures of the record as PNG files, and send them to the loggers that accept images."""
        if self._writer is None or not self._writer.path.exists():
            return
        from polyloss_lightning.plotting import run_figures, save_figures

        folder = self._writer.path.parent / "figures"
        try:
            figures = run_figures(read_record(self._writer.path))
            paths = save_figures(figures, folder)
        except (ModuleNotFoundError, OSError, ValueError, RuntimeError) as error:
            rank_zero_warn(f"no figures of the polynomial terms: {_reason(error)}")
            return
        for logger in trainer.loggers:
            try:
                _send(logger, figures, paths, trainer.global_step)
            except Exception as error:  # noqa: PERF203 (loggers raise errors of any type; one that fails must not affect the others)
                rank_zero_warn(f"{type(logger).__name__} has no figures of the polynomial terms: {_reason(error)}")


def _send(logger: Logger, figures: Mapping[str, Figure], paths: Sequence[Path], step: int) -> None:
    for (name, figure), path in zip(figures.items(), paths, strict=True):
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(f"poly/{name}", figure, step, close=False)
        elif callable(log_image := getattr(logger, "log_image", None)):
            log_image(key=f"poly/{name}", images=[str(path)])


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _log_dir(trainer: pl.Trainer) -> Path | None:
    folder = trainer.log_dir  # a collective: it broadcasts the folder from rank zero, so every process must call it
    if folder is None or not trainer.loggers or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    logger = trainer.loggers[0]
    if isinstance(logger, TensorBoardLogger | CSVLogger):
        return Path(folder)
    # For other loggers log_dir is the folder of all runs, so use the folder in which Lightning saves checkpoints.
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(os.path.join(folder, str(logger.name), version))
