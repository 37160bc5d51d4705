"""The figure of the distribution of Pt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polyloss_lightning.plotting import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from polyloss_lightning.record import EpochRecord


def pt_histogram_figure(epochs: Sequence[EpochRecord], title: str = "") -> Figure:
    """Draw the histogram of Pt, weighted as in the loss, at the start, in the middle and at the end of training.

    Args:
        epochs: at least one epoch of a stage and loss, in order.
        title: prefix of the title of the figure.
    """
    figure = style.new_figure(size=(7.0, 4.2))
    (axes,) = figure.axes
    axes.set_yscale("log")  # makes the rare wrong predictions visible, which matter most for the loss
    axes.set_ylim(1e-3, 150.0)
    looks = (
        (0, style.ORANGE, ":", 1.8),
        (len(epochs) // 2, style.SKY, "--", 1.5),
        (len(epochs) - 1, style.BLACK, "-", 2.0),
    )
    for index, colour, dash, width in {
        look[0]: look for look in looks
    }.values():  # of equal indices only the last look is drawn
        bins = epochs[index].pt_histogram
        total = sum(bins)
        edges = [edge / len(bins) for edge in range(len(bins) + 1)]
        percent = [100.0 * weight / total if total else 0.0 for weight in bins]
        label = f"epoch {epochs[index].epoch}"
        axes.stairs(percent, edges, baseline=None, color=colour, linestyle=dash, linewidth=width, label=label)
    axes.set_xlim(0.0, 1.0)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"probability of the target class, {style.PT}")
    axes.set_ylabel("share of the weight per bin (%)")
    return style.finish(figure, f"{title}Distribution of {style.PT} ({epochs[0].stage})")
