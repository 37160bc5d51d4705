"""All figures of a run, from what the run itself recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polyloss_lightning.plotting.classes import classes_figure
from polyloss_lightning.plotting.curves import REFERENCE_EPSILON, coefficients_figure, loss_and_gradient_figure
from polyloss_lightning.plotting.distribution import pt_histogram_figure
from polyloss_lightning.plotting.training import share_figure, terms_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from polyloss_lightning.record import EpochRecord, Record


def run_figures(record: Record, stage: str = "train") -> dict[str, Figure]:
    """Figures of a recorded run: one set for each of its losses.

    Args:
        record: what :func:`polyloss_lightning.record.read_record` reads.
        stage: stage that is drawn; a loss without an epoch of it shows the first stage that it has. With ``train``
            the validation values are thin dashed lines.

    Returns:
        ``loss_and_gradient``, ``coefficients``, ``terms``, ``first_term_share``, ``pt_histogram`` and, where classes
        were recorded, ``classes``; with several losses the loss's path stands before each name, as in
        ``head.loss_fn/terms``. Empty for an empty record.

    Raises:
        ModuleNotFoundError: if matplotlib is missing.
    """
    losses = list(dict.fromkeys(epoch.loss for epoch in record.epochs))
    figures = {}
    for loss in losses:
        several = len(losses) > 1
        for name, figure in _loss_figures(record, stage, loss, f"{loss}\n" if several else "").items():
            figures[f"{loss}/{name}" if several else name] = figure
    return figures


def _loss_figures(record: Record, stage: str, loss: str, title: str) -> dict[str, Figure]:
    epochs = _last_of_each_epoch(record, stage, loss)
    if not epochs:
        first = next(epoch.stage for epoch in record.epochs if epoch.loss == loss)
        epochs = _last_of_each_epoch(record, first, loss)
    other = _last_of_each_epoch(record, "val", loss) if epochs[0].stage == "train" else []
    last = epochs[-1]
    trained = [tuple(epoch.epsilon) for epoch in epochs]
    family = [(epsilon,) for epsilon in REFERENCE_EPSILON]
    # Cross-entropy stands behind the stems as bars; focal's own coefficients do not.
    ends = list(dict.fromkeys([*([(0.0,)] if last.gamma else []), trained[0], trained[-1]]))
    figures = {
        "loss_and_gradient": loss_and_gradient_figure(last.gamma, family, trained, last.num_terms, title),
        "coefficients": coefficients_figure(last.gamma, ends, last.num_terms, title=title),
        "terms": terms_figure(epochs, other, title=title),
        "first_term_share": share_figure(epochs, other, title=title),
        "pt_histogram": pt_histogram_figure(epochs, title),
    }
    classes = [(epoch.epoch, epoch.classes) for epoch in epochs if epoch.classes is not None]
    if classes:
        number, end = classes[-1]
        start = classes[0][1] if len(classes) > 1 else None
        title = f"{title}Classes at epoch {number} ({last.stage})"
        figures["classes"] = classes_figure(start, end, record.class_counts, title)
    return figures


def _last_of_each_epoch(record: Record, stage: str, loss: str) -> list[EpochRecord]:
    """One value an epoch: validation inside an epoch, and an epoch repeated after a resume, leave several."""
    epochs = {epoch.epoch: epoch for epoch in record.select(stage=stage, loss=loss)}
    return [epochs[number] for number in sorted(epochs)]
