import math
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from polyloss_lightning.record import ClassRecord, EpochRecord, Record

PT_GRID = (np.arange(50) + 0.5) / 50


def _sums(pt, weight, epsilon, gamma, num_terms=3):
    """The metrics of a weighted sample of Pt, in float64, by the formulas of the documentation."""
    miss = 1 - pt
    mean = lambda values: float((weight * values).sum() / weight.sum())  # noqa: E731
    coefficient = [1 / j + (epsilon[j - 1] if j <= len(epsilon) else 0.0) for j in range(1, 30)]
    base = miss**gamma * -np.log(pt)
    loss = base + sum(e * miss ** (j + 1 + gamma) for j, e in enumerate(epsilon))
    terms = {f"term_{j}": mean(coefficient[j - 1] * miss ** (j + gamma)) for j in range(1, num_terms + 1)}
    slope = miss**gamma / pt + (gamma * miss ** (gamma - 1) * -np.log(pt) if gamma else 0.0)
    slope = slope + sum((j + 1 + gamma) * e * miss ** (j + gamma) for j, e in enumerate(epsilon))
    first = (1 + epsilon[0]) * (1 + gamma) * miss**gamma
    share = mean(first / slope) if epsilon[0] >= -1 else math.nan
    metrics = {
        **terms,
        "tail": mean(loss) - sum(terms.values()),
        "loss": mean(loss),
        "base_loss": mean(base),
        "correction": mean(loss - base),
        "first_term_share": share,
        "pt": mean(pt),
    }
    return metrics, mean(pt), share, float((weight * abs(first)).sum())


def make_epoch(
    progress, *, epoch=0, stage="train", loss="loss_fn", epsilon=(1.0,), gamma=0.0, num_terms=None, counts=None
):
    """One epoch of a made-up training, in which Pt moves from 1 / C towards 1 as ``progress`` goes from 0 to 1."""
    rank = np.linspace(0, 1, len(counts)) if counts else np.zeros(1)
    weight = np.asarray(counts or [1], dtype=float) / sum(counts or [1])
    confidence = 1 + 25 * progress * (1 - 0.6 * rank)
    density = PT_GRID ** (confidence[:, None] - 1) * (1 - PT_GRID) ** 0.8
    density *= weight[:, None] / density.sum(1, keepdims=True)
    rows = [_sums(PT_GRID, row, epsilon, gamma) for row in density]
    classes = counts and ClassRecord(
        weight=tuple(density.sum(1).tolist()),
        pt=tuple(row[1] for row in rows),
        first_term_share=tuple(row[2] for row in rows),
        first_term_gradient=tuple(row[3] for row in rows),
    )
    histogram = density.sum(0)
    metrics = _sums(PT_GRID, histogram, epsilon, gamma)[0]
    return EpochRecord(
        stage=stage,
        loss=loss,
        epoch=epoch,
        step=10 * (epoch + 1),
        epsilon=tuple(epsilon),
        gamma=gamma,
        num_terms=num_terms,
        metrics=metrics,
        pt_histogram=tuple(histogram.tolist()),
        classes=classes or None,
    )


def make_run(num_epochs, *, epsilon=lambda t: (1.0,), stages=("train", "val"), losses=("loss_fn",), **options):
    """A record of ``num_epochs``; ``epsilon`` gives the perturbations at t in [0, 1]."""
    counts = options.get("counts")
    epochs = []
    for number in range(num_epochs):
        t = number / max(num_epochs - 1, 1)
        for stage in stages:
            progress = t if stage == "train" else 0.7 * t
            epochs += [
                make_epoch(progress, epoch=number, stage=stage, loss=loss, epsilon=epsilon(t), **options)
                for loss in losses
            ]
    return Record(class_counts=tuple(counts) if counts else None, epochs=epochs)


@pytest.fixture
def run_record():
    """The maker of made-up records."""
    return make_run


def visible_texts(figure):
    """Text and box of all that is drawn as text: title, legend, axis labels and the tick labels within the view."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = [figure._suptitle, *figure.legends]
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis, low, high in ((axes.xaxis, axes.bbox.x0, axes.bbox.x1), (axes.yaxis, axes.bbox.y0, axes.bbox.y1)):
            place = 0 if axis is axes.xaxis else 1
            for label in axis.get_ticklabels():
                at = label.get_transform().transform(label.get_position())[place]
                if low - 0.01 <= at <= high + 0.01:  # those beyond are there, and not drawn
                    texts.append(label)
    boxes = [(text, text.get_window_extent(renderer)) for text in texts if text.get_visible()]
    return [(text, box) for text, box in boxes if box.width * box.height > 0]


def check_texts(figures):
    for name, figure in figures.items():
        figure.set_dpi(100)
        assert any(axes.get_xlabel() for axes in figure.axes), name
        assert all(axes.get_ylabel() for axes in figure.axes), name
        found = visible_texts(figure)
        assert len(found) > 8
        for text, box in found:
            assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= -1, (name, text)
        for (text, box), (other, other_box) in combinations(found, 2):
            wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert min(wide, high) <= 1, (name, text, other)


@pytest.fixture
def texts_keep_clear():
    """A check that axes are labelled, and that no text of the figures leaves its figure or meets another text."""
    return check_texts
