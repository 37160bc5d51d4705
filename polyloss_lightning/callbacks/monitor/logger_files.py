"""Sending figures and files to the loggers that accept them, by the methods of each logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lightning.pytorch.loggers import Logger

from polyloss_lightning import _files
from polyloss_lightning.record import RECORD_NAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Kind: TypeAlias = Literal["tensorboard", "comet", "mlflow", "wandb", "images", "other"]


def send_figures(logger: Logger, figures: Mapping[str, Figure], paths: Sequence[str], step: int) -> bool:
    """Send each figure, or its PNG file, and return whether the logger accepts figures."""
    kind, experiment = _kind(logger)
    for (name, figure), path in zip(figures.items(), paths, strict=True):
        if kind == "tensorboard":
            experiment.add_figure(f"poly/{name}", figure, step, close=False)
        elif kind == "comet":
            experiment.log_figure(f"poly/{name}", figure, step=step)
        elif kind == "mlflow":
            with _files.local_copy(path) as image:
                experiment.log_artifact(logger.run_id, image, "figures")  # type: ignore[attr-defined]
        elif kind in ("wandb", "images"):
            with _files.local_copy(path) as image:
                logger.log_image(key=f"poly/{name}", images=[image])  # type: ignore[attr-defined]
        else:
            return False
    return True


def keeps_files(logger: Logger) -> bool:
    """Return whether the logger accepts files of any type."""
    return _kind(logger)[0] in ("comet", "mlflow", "wandb")


def send_record(logger: Logger, path: str) -> None:
    """Send the record of a run to a logger that accepts files."""
    kind, experiment = _kind(logger)
    with _files.local_copy(path) as file:
        if kind == "mlflow":
            experiment.log_artifact(logger.run_id, file)  # type: ignore[attr-defined]
        elif kind == "wandb":
            experiment.log_artifact(file, name=f"poly_terms-{experiment.id}", type="record")
        elif kind == "comet":
            with open(file, "rb") as contents:  # Comet copies an open file before it uploads it in the background
                experiment.log_asset(contents, file_name=RECORD_NAME, overwrite=True)


def _kind(logger: Logger) -> tuple[_Kind, Any]:
    """Return what a logger is, by its methods (its class depends on the namespace of Lightning), and its experiment."""
    experiment = getattr(logger, "experiment", None)

    def has(owner: object, method: str) -> bool:
        return callable(getattr(owner, method, None))

    kind: _Kind = "other"
    if has(experiment, "add_figure"):
        kind = "tensorboard"
    elif has(experiment, "log_figure") and has(experiment, "log_asset"):
        kind = "comet"
    elif has(experiment, "log_artifact") and hasattr(logger, "run_id"):
        kind = "mlflow"
    elif has(logger, "log_image"):
        kind = "wandb" if has(experiment, "log_artifact") else "images"
    return kind, experiment
