"""The reliability diagram, which shows whether predicted probabilities can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyloss_lightning.plotting import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability_figure(bins: Tensor | Sequence[Sequence[float]], title: str = "") -> Figure:
    """Draw how often predictions of about the same probability are right, and how many predictions there are.

    The gap in a bin is the difference between the mean probability and the share of right predictions. Predictions are
    too confident if their bar ends below the diagonal. The mean of the absolute gaps over all predictions is the
    expected calibration error.

    Args:
        bins: for bins of equal width between 0 and 1 the number of predictions, the sum of their probabilities, and the
            number of right predictions, as in ``ImageClassifier.class_results["test"]["reliability"]``.
        title: title of the figure; by default the expected calibration error.

    Shape:
        - bins: (3, B)

    Raises:
        ValueError: if ``bins`` does not have three rows, or contains a number that is negative or not finite.
        ModuleNotFoundError: if matplotlib is missing.

    Example:
        >>> reliability_figure([[0, 10], [0.0, 9.0], [0, 8]]).get_suptitle()
        'Reliability of 10 predictions, expected calibration error 10.0 %'
    """
    counts, probabilities, right = _checked(bins).tolist()
    number = len(counts)
    edges = [100.0 * edge / number for edge in range(number + 1)]
    observed, expected = (
        [100.0 * part / count if count else math.nan for part, count in zip(sums, counts, strict=True)]
        for sums in (right, probabilities)
    )
    figure = style.new_figure(2, 1, (5.5, 5.5), heights=(3.0, 1.0))
    diagram, histogram = figure.axes
    bar: dict[str, Any] = {"fill": True, "edgecolor": "white"}
    diagram.stairs(observed, edges, facecolor=style.BLUE, label="observed", **bar)
    look: dict[str, Any] = {"facecolor": style.ORANGE, "alpha": 0.7, "hatch": "///"}
    diagram.stairs(expected, edges, baseline=observed, label="gap to the predicted probability", **look, **bar)
    diagram.plot([0.0, 100.0], [0.0, 100.0], color=style.BLACK, linestyle="--", linewidth=1.2, label="calibrated")
    diagram.set_ylim(0.0, 100.0)
    diagram.set_ylabel("right predictions (%)")
    total = sum(counts)
    histogram.stairs([100.0 * count / total if total else 0.0 for count in counts], edges, facecolor=style.GREY, **bar)
    histogram.set_ylim(bottom=0.0)
    histogram.set_ylabel("share of the\npredictions (%)")
    histogram.set_xlabel("predicted probability (%)")
    for axes in figure.axes:
        axes.set_xlim(0.0, 100.0)
        axes.label_outer()
    gaps = [abs(hits - probability) for hits, probability in zip(right, probabilities, strict=True)]
    error = f", expected calibration error {100.0 * sum(gaps) / total:.1f} %" if total else ""
    return style.finish(figure, title or f"Reliability of {total:,.0f} predictions{error}")


def _checked(bins: Tensor | Sequence[Sequence[float]]) -> Tensor:
    try:
        values = torch.as_tensor(bins).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`bins` must have shape (3, B): {error}") from error
    if values.dim() != 2 or values.shape[0] != 3 or not values.shape[1]:
        raise ValueError(f"`bins` must have shape (3, B), got {list(values.shape)}")
    if not bool((values.isfinite() & (values >= 0)).all()):
        raise ValueError("`bins` must contain finite numbers of at least 0")
    return values
