"""What the command prints and writes at the end of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lightning.pytorch import Trainer
from rich.console import Console
from torch import Tensor

from polyloss_lightning._class_groups import head_middle_tail, many_medium_few
from polyloss_lightning.cli.class_results import ClassResults, split_classes
from polyloss_lightning.cli.results_table import classes_table, metrics_table

ClassGroups: TypeAlias = Literal["head_middle_tail", "many_medium_few"]


def print_results(
    metrics: Mapping[str, Tensor | float],
    vectors: Mapping[str, Tensor],
    datamodule: Any,
    title: str,
    groups: ClassGroups,
) -> ClassResults:
    """Print a table of metrics and a table of classes, and return the values of the classes.

    Args:
        metrics: scalars by name.
        vectors: values of classes by metric, one entry per class.
        datamodule: may have ``class_names`` and ``class_counts``.
        title: title of the tables.
        groups: how classes are grouped by their number of training samples.
    """
    console = Console()
    scalars, classes = split_classes(metrics, vectors)
    counts = getattr(datamodule, "class_counts", None) or ()
    results = ClassResults(classes, getattr(datamodule, "class_names", None) or (), counts)
    if scalars:
        console.print(metrics_table(scalars, title))
    if classes:
        divide = head_middle_tail if groups == "head_middle_tail" else many_medium_few
        console.print(classes_table(results, title, divide(counts)))
    return results


def save_confusion_matrix(matrix: Tensor | None, datamodule: Any, folder: Path) -> str | None:
    """Draw the confusion matrix, and return the path of the figure; None if there is no matrix or no matplotlib."""
    if matrix is None:
        return None
    from polyloss_lightning.plotting import confusion_matrix_figure, save_figures

    try:
        figure = confusion_matrix_figure(matrix, getattr(datamodule, "class_names", None))
    except ModuleNotFoundError:
        return None
    (path,) = save_figures({"confusion_matrix": figure}, folder / "figures")
    return path


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of the logs, or ``default_root_dir`` if there is none."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def print_paths(trainer: Trainer, others: Mapping[str, Path | None]) -> None:
    """Print the paths of what a run has written."""
    written = {"checkpoint": str(getattr(trainer.checkpoint_callback, "best_model_path", ""))}
    for logger in trainer.loggers:
        written[type(logger).__name__] = str(getattr(logger, "log_dir", None) or logger.save_dir or "")
    written["figures"] = str(run_folder(trainer) / "figures")
    written |= {name: str(path) for name, path in others.items() if path is not None}
    for name, path in written.items():
        if path and Path(path).exists():
            # Plain print, because rich would break a long path into two lines.
            print(f"{name}: {path}")
