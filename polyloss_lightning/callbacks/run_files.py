"""What a monitored run leaves beside its logs: the record, and figures of it."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from polyloss_lightning.record import EpochRecord, RecordWriter, read_record


class RunFiles:
    """The record of one run; writes on rank zero only, and nothing without a logger."""

    def __init__(self) -> None:
        self._writer: RecordWriter | None = None
        self._opened = False

    def open(self, trainer: pl.Trainer) -> None:
        """Begin the record of a new run, or go on with that of a resumed one; to be called on every process."""
        if self._opened:
            return
        self._opened = True
        folder = _log_dir(trainer)
        if folder is None or not trainer.is_global_zero:
            self._writer = None
        elif self._writer is None or self._writer.path.parent != folder:
            fresh = trainer.state.fn == TrainerFn.FITTING and trainer.global_step == 0
            self._writer = RecordWriter(folder, append=not fresh)

    def close(self) -> None:
        """The run is over; the next one may have another folder."""
        self._opened = False

    def write(self, epochs: Iterable[EpochRecord], class_counts: Sequence[float] | None) -> None:
        """Add the passes to the record."""
        if self._writer is not None:
            self._writer.write(epochs, class_counts)

    def draw(self, trainer: pl.Trainer) -> None:
        """Write the figures of the record as PNG files, and send them to the loggers that take images."""
        if self._writer is None or not self._writer.path.exists():
            return
        from polyloss_lightning.plotting import run_figures, save_figures

        folder = self._writer.path.parent / "figures"
        try:
            figures = run_figures(read_record(self._writer.path))
        except ModuleNotFoundError as error:
            rank_zero_warn(f"no figures of the polynomial terms: {error}")
            return
        for (name, figure), path in zip(figures.items(), save_figures(figures, folder), strict=True):
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(f"poly/{name}", figure, trainer.global_step, close=False)
                elif callable(log_image := getattr(logger, "log_image", None)):
                    log_image(key=f"poly/{name}", images=[str(path)])


def _log_dir(trainer: pl.Trainer) -> Path | None:
    folder = trainer.log_dir  # asks rank zero: every process must come here
    if folder is None or not trainer.loggers or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    logger = trainer.loggers[0]
    if isinstance(logger, TensorBoardLogger | CSVLogger):
        return Path(folder)
    # Other loggers say where all runs are; one run's folder is where Lightning puts its checkpoints.
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(os.path.join(folder, str(logger.name), version))
