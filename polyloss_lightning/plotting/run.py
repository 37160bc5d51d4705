"""All figures of a run, drawn from its record."""

from __future__ import annotations

import base64
import html
import io
import os
from typing import TYPE_CHECKING

from polyloss_lightning.plotting.classes import classes_figure
from polyloss_lightning.plotting.curves import REFERENCE_EPSILON, coefficients_figure, loss_and_gradient_figure
from polyloss_lightning.plotting.distribution import pt_histogram_figure
from polyloss_lightning.plotting.training import share_figure, terms_figure
from polyloss_lightning.record import EpochRecord, Record, read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Figures(dict[str, "Figure"]):
    """Figures by name. At the end of a notebook cell all of them are shown."""

    def _repr_html_(self) -> str:
        images = []
        for name, figure in self.items():
            data = io.BytesIO()
            figure.savefig(data, format="png", dpi=100)
            source = base64.b64encode(data.getvalue()).decode()
            images.append(f'<img src="data:image/png;base64,{source}" alt="{html.escape(name)}">')
        return "<br>".join(images)


def run_figures(run: Record | str | os.PathLike[str], stage: str = "train") -> Figures:
    """Draw the figures of a recorded run, one set for each of its losses.

    Args:
        run: folder that contains the record ``poly_terms.jsonl``, the record itself, the URL of either, or what
            :func:`polyloss_lightning.record.read_record` returned.
        stage: stage to draw. For a loss without an epoch of this stage, the first stage that it has is drawn. With
            ``train`` the validation values are added as thin dashed lines.

    Returns:
        ``loss_and_gradient``, ``coefficients``, ``terms``, ``first_term_share``, ``pt_histogram`` and, if values per
        class were recorded, ``classes``. With several losses each name is preceded by the path of the loss, as in
        ``head.loss_fn/terms``. Empty if the record is empty. In a notebook, the result at the end of a cell shows all
        figures, and ``run_figures(run)["terms"]`` is one of them.

    Raises:
        FileNotFoundError: if there is no record.
        ValueError: if the file is not a record.
        ModuleNotFoundError: if matplotlib is missing.
    """
    record = run if isinstance(run, Record) else read_record(run)
    losses = list(dict.fromkeys(epoch.loss for epoch in record.epochs))
    figures = Figures()
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
    # The figure always shows plain cross-entropy as bars. For focal loss, add its coefficients without epsilon.
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
        figures["classes"] = classes_figure(start, end, record.class_counts, title, record.class_names)
    return figures


def _last_of_each_epoch(record: Record, stage: str, loss: str) -> list[EpochRecord]:
    """Return the last pass of each epoch; several validations in an epoch, or a resume, leave more than one."""
    epochs = {epoch.epoch: epoch for epoch in record.select(stage=stage, loss=loss)}
    return [epochs[number] for number in sorted(epochs)]
