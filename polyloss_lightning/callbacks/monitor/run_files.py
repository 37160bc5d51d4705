"""The files that a monitored run writes next to its logs: the record and its figures."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from polyloss_lightning import _files
from polyloss_lightning.callbacks.monitor.class_values import given_names
from polyloss_lightning.callbacks.monitor.logger_files import keeps_files, send_figures, send_record
from polyloss_lightning.callbacks.trainer.log_dir import log_dir
from polyloss_lightning.record import EpochRecord, RecordWriter


class RunFiles:
    """The record and figures of one run, written on rank zero only.

    No failure here ends the run: file systems and loggers raise errors of any type, and all of them become warnings.
    """

    def __init__(self) -> None:
        self._writer: RecordWriter | None = None
        self._opened = False
        self._failed = False
        self._unsent: list[Logger] = []  # the loggers that keep files and lack the newest lines of the record

    def open(self, trainer: pl.Trainer) -> None:
        """Begin the record of a new run, or continue that of a resumed one."""
        if self._opened:
            return
        self._opened, self._failed = True, False
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._writer = None
            return
        folder = log_dir(trainer)
        fresh = trainer.state.fn == TrainerFn.FITTING and trainer.global_step == 0
        if fresh or self._writer is None or self._writer.folder != folder:
            self._writer = RecordWriter(folder, append=not fresh, class_names=given_names(trainer))
            logger = trainer.logger
            if logger is None or logger.save_dir is None:
                reason = "there is no logger" if logger is None else f"{type(logger).__name__} has no folder"
                rank_zero_info(f"{reason}: the record and figures of the polynomial terms go to {folder}")

    def close(self) -> None:
        """End the run, so that the next one determines its own folder, and send the record to loggers of files."""
        self._opened = False
        unsent, self._unsent = self._unsent, []
        if self._writer is None:
            return
        for logger in unsent:
            with _warning(f"{type(logger).__name__} has no record of the polynomial terms"):
                send_record(logger, self._writer.path)

    def write(self, trainer: pl.Trainer, epochs: Iterable[EpochRecord], class_counts: Sequence[float] | None) -> None:
        """Add ``epochs`` to the record."""
        if self._writer is None:
            return
        try:
            self._writer.write(epochs, class_counts)
        except Exception as error:
            if not self._failed:
                message = "the record of the polynomial terms was not written. Every later epoch tries again"
                rank_zero_warn(f"{message}. {type(error).__name__}: {error}")
            self._failed = True
        else:
            self._unsent = [logger for logger in trainer.loggers if keeps_files(logger)]

    def draw(self, trainer: pl.Trainer) -> None:
        """Write the figures of the record as PNG files, and send them to the loggers that accept images."""
        if self._writer is None:
            return
        with _warning("no figures of the polynomial terms"):
            if not _files.exists(self._writer.path):
                return
            from polyloss_lightning.plotting import run_figures, save_figures

            figures = run_figures(self._writer.path)
            folder = _files.join(self._writer.folder, "figures")
            paths = save_figures(figures, folder)
            for logger in trainer.loggers:
                name = type(logger).__name__
                with _warning(f"{name} has no figures of the polynomial terms, which are in {folder}"):
                    if not send_figures(logger, figures, paths, trainer.global_step):
                        rank_zero_info(f"{name} takes no figures: those of the polynomial terms are in {folder}")


@contextmanager
def _warning(message: str) -> Iterator[None]:
    """Turn an error into a warning."""
    try:
        yield
    except Exception as error:
        rank_zero_warn(f"{message}: {type(error).__name__}: {error}")
