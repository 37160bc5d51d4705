"""What the command prints and writes at the end of a run."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from lightning.pytorch import Trainer
from rich.console import Console
from torch import Tensor

from polyloss_lightning import _files
from polyloss_lightning._class_groups import head_middle_tail, many_medium_few
from polyloss_lightning.callbacks.monitor.class_values import given_counts, given_names
from polyloss_lightning.callbacks.trainer.log_dir import log_dir
from polyloss_lightning.cli.class_results import ClassResults, split_classes
from polyloss_lightning.cli.results_table import classes_table, metrics_table

ClassGroups: TypeAlias = Literal["head_middle_tail", "many_medium_few"]


def print_results(
    metrics: Mapping[str, Tensor | float],
    vectors: Mapping[str, Tensor],
    trainer: Trainer,
    title: str,
    groups: ClassGroups,
) -> ClassResults:
    """Print a table of metrics and a table of classes, and return the values of the classes.

    Args:
        metrics: scalars by name.
        vectors: values of classes by metric, one entry per class.
        trainer: its datamodule may have ``class_names`` and ``class_counts``.
        title: title of the tables.
        groups: how classes are grouped by their number of training samples.
    """
    console = Console()
    # The values of the terms come after those of the model.
    ordered = sorted(metrics.items(), key=lambda item: "/poly/" in item[0])
    scalars, classes = split_classes(dict(ordered), vectors)
    counts = given_counts(trainer) or ()
    results = ClassResults(classes, given_names(trainer) or (), counts)
    if classes:  # the table of the classes has a row for each group
        scalars = {name: value for name, value in scalars.items() if not name.endswith(("_head", "_middle", "_tail"))}
    if scalars:
        console.print(metrics_table(scalars, title))
    if classes:
        divide = head_middle_tail if groups == "head_middle_tail" else many_medium_few
        console.print(classes_table(results, title, divide(counts)))
    return results


def save_evaluation_figures(vectors: Mapping[str, Tensor], trainer: Trainer) -> list[str]:
    """Draw the confusion matrix and the reliability diagram, and return the paths of the figures.

    Args:
        vectors: may contain ``confusion_matrix`` and ``reliability``.
        trainer: its datamodule may have ``class_names``. Nothing is drawn without matplotlib.
    """
    from polyloss_lightning.plotting import confusion_matrix_figure, reliability_figure, save_figures

    figures = {}
    try:
        if "confusion_matrix" in vectors:
            matrix = vectors["confusion_matrix"]
            figures["confusion_matrix"] = confusion_matrix_figure(matrix, given_names(trainer))
        if "reliability" in vectors:
            figures["reliability"] = reliability_figure(vectors["reliability"])
    except ModuleNotFoundError:
        return []
    return save_figures(figures, _files.join(log_dir(trainer), "figures"))


def print_paths(trainer: Trainer, others: Mapping[str, str]) -> None:
    """Print the paths of what a run has written."""
    written = {"checkpoint": str(getattr(trainer.checkpoint_callback, "best_model_path", ""))}
    for logger in trainer.loggers:
        written[type(logger).__name__] = str(getattr(logger, "log_dir", None) or logger.save_dir or "")
    written["figures"] = _files.join(log_dir(trainer), "figures")
    for name, path in {**written, **others}.items():
        if path and _files.exists(path):
            # Plain print, because rich would break a long path into two lines.
            print(f"{name}: {path}")
