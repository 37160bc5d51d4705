"""Figures of the course of training: the terms of the loss, epsilon, and the share of the first term."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from polyloss_lightning.plotting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from polyloss_lightning.record import EpochRecord


def terms_figure(
    epochs: Sequence[EpochRecord], other: Sequence[EpochRecord] = (), other_name: str = "val", title: str = ""
) -> Figure:
    """Draw the stacked contribution of each term to the loss, in nats and in percent, and epsilon in a separate panel.

    Positive terms are stacked upwards and negative terms downwards. Together with the tail they add up to the loss. The
    percentages refer to the sum of all magnitudes, and stay readable when the loss has become small.

    Args:
        epochs: at least one epoch of a stage and loss, in order.
        other: epochs of a second stage, whose loss is drawn as a thin line.
        other_name: name of the second stage.
        title: prefix of the title of the figure.
    """
    figure = style.new_figure(3, 1, (7.5, 7.5), heights=(2.0, 1.5, 1.0))
    loss_axes, percent_axes, epsilon_axes = figure.axes
    edges = _edges([epoch.epoch for epoch in epochs])
    terms = _terms(epochs)
    totals = [sum(map(abs, column)) for column in zip(*terms.values(), strict=True)]
    percent = {
        label: [100.0 * value / total if total else math.nan for value, total in zip(values, totals, strict=True)]
        for label, values in terms.items()
    }
    _draw_stack(loss_axes, terms, edges)
    _draw_stack(percent_axes, percent, edges)
    loss_axes.stairs(
        _series(epochs, "loss"),
        edges,
        baseline=None,
        color=style.BLACK,
        linewidth=1.8,
        label=f"loss ({epochs[0].stage})",
        path_effects=style.halo(),
    )
    _draw_line(loss_axes, epochs, "base_loss", style.SKY, "-.", "base loss (ε = 0)", width=1.4, marker="s")
    if other:
        _draw_line(loss_axes, other, "loss", style.VERMILLION, "--", f"loss ({other_name})", width=1.1, marker="^")
    loss_axes.set_ylabel("contribution\nto the loss (nats)")
    percent_axes.set_ylabel("share of the sum of\nmagnitudes (%)")
    _draw_epsilon(epsilon_axes, epochs)
    for axes in figure.axes:
        style.epoch_axis(axes, [epoch.epoch for epoch in epochs])
        axes.label_outer()
    return style.finish(figure, f"{title}Terms of the loss over training")


def share_figure(
    epochs: Sequence[EpochRecord], other: Sequence[EpochRecord] = (), other_name: str = "val", title: str = ""
) -> Figure:
    """Draw the share of the gradient that comes from the first term, and mark the epochs at which it crosses 50 %.

    Args:
        epochs: at least one epoch of a stage and loss, in order.
        other: epochs of a second stage, drawn as a thin line.
        other_name: name of the second stage.
        title: prefix of the title of the figure.
    """
    figure = style.new_figure(size=(7.0, 4.2))
    (axes,) = figure.axes
    axes.axhline(50.0, color=style.GREY, linewidth=1.0, linestyle=":")
    percent = 100.0
    _draw_line(axes, epochs, "first_term_share", style.BLUE, "-", epochs[0].stage, width=2.0, marker="o", scale=percent)
    if other:
        _draw_line(
            axes, other, "first_term_share", style.VERMILLION, "--", other_name, width=1.1, marker="^", scale=percent
        )
    share = [percent * value for value in _series(epochs, "first_term_share")]
    found = crossings([epoch.epoch for epoch in epochs], share, 50.0)
    if found:
        where = ", ".join(f"{epoch:.1f}" for epoch in found[:3]) + (", …" if len(found) > 3 else "")
        label = f"crosses 50 % at epoch {where}"
        axes.plot(found, [50.0] * len(found), "D", color=style.BLACK, markersize=8, markerfacecolor="none", label=label)
        axes.vlines(found, 0.0, 50.0, color=style.BLACK, linewidth=0.8, linestyle=":")
    finite = [value for value in share if math.isfinite(value)]
    if not finite:
        axes.text(
            0.5,
            0.6,
            "not defined: ε below −1, or no target",
            ha="center",
            backgroundcolor="white",
            transform=axes.transAxes,
        )
    axes.set_ylim(min([0.0, *finite]) - 2.0, max([100.0, *finite]) + 2.0)
    style.epoch_axis(axes, [epoch.epoch for epoch in epochs])
    axes.set_ylabel(f"first term's share of {style.GRADIENT} (%)")
    return style.finish(figure, f"{title}First term's share of the gradient over training")


def crossings(x: Sequence[float], y: Sequence[float], level: float) -> list[float]:
    """Return the x at which the line through the points crosses ``level``; segments with a NaN are skipped.

    Example:
        >>> crossings([0, 1, 2, 3], [0.0, 40.0, 60.0, 50.0], 50.0)
        [1.5]
    """
    found = []
    for left, right, below, above in zip(x[:-1], x[1:], y[:-1], y[1:], strict=True):
        if (below < level <= above) or (below >= level > above):
            found.append(left + (right - left) * (level - below) / (above - below))
    return found


def _series(epochs: Sequence[EpochRecord], name: str) -> list[float]:
    return [epoch.metrics.get(name, math.nan) for epoch in epochs]


def _draw_line(
    axes: Axes,
    epochs: Sequence[EpochRecord],
    name: str,
    colour: str,
    dash: str,
    label: str,
    *,
    width: float,
    marker: str,
    scale: float = 1.0,
) -> None:
    axes.plot(
        [epoch.epoch for epoch in epochs],
        [scale * value for value in _series(epochs, name)],
        color=colour,
        linestyle=dash,
        linewidth=width,
        marker=style.marker_for(marker, len(epochs)),
        markersize=3.5 * width,
        label=label,
        path_effects=style.halo(),
    )


def _terms(epochs: Sequence[EpochRecord]) -> dict[str, list[float]]:
    numbers = sorted({int(name[5:]) for epoch in epochs for name in epoch.metrics if name.startswith("term_")})
    terms = {f"term {number}": _series(epochs, f"term_{number}") for number in numbers}
    return {**terms, "tail (all later terms)": _series(epochs, "tail")}


def _draw_stack(axes: Axes, terms: Mapping[str, Sequence[float]], edges: Sequence[float]) -> None:
    """Draw one filled area per term, stacked on the earlier terms of the same sign."""
    upper, lower = [0.0] * (len(edges) - 1), [0.0] * (len(edges) - 1)
    for index, ((label, values), colour) in enumerate(zip(terms.items(), style.shades(len(terms)), strict=True)):
        bases, tops = [], []
        for at, value in enumerate(values):
            side = lower if value < 0 else upper
            bases.append(side[at])
            tops.append(side[at] + value)
            side[at] += value if math.isfinite(value) else 0.0
        hatch = style.HATCHES[index % len(style.HATCHES)]
        axes.stairs(
            tops, edges, baseline=bases, fill=True, facecolor=colour, edgecolor="white", hatch=hatch, label=label
        )
    axes.axhline(0.0, color=style.BLACK, linewidth=0.8)


def _edges(epochs: Sequence[int]) -> list[float]:
    """Return the edges half-way between neighbouring epochs, and half an epoch beyond the first and the last."""
    between = [(left + right) / 2 for left, right in pairwise(epochs)]
    return [epochs[0] - 0.5, *between, epochs[-1] + 0.5]


def _draw_epsilon(axes: Axes, epochs: Sequence[EpochRecord]) -> None:
    count = max(len(epoch.epsilon) for epoch in epochs)
    x = [epoch.epoch for epoch in epochs]
    for index, colour in enumerate(style.shades(count)):
        y = [epoch.epsilon[index] if index < len(epoch.epsilon) else math.nan for epoch in epochs]
        axes.plot(
            x,
            y,
            color=colour,
            linestyle="-" if index == 0 else style.DASHES[(index - 1) % len(style.DASHES)],
            marker=style.marker_for(style.MARKERS[index % len(style.MARKERS)], len(epochs)),
            markersize=4,
            label=f"$\\epsilon_{{{index + 1}}}$" if count > 1 else None,
        )
    # Make the axis span at least 1, so that a constant epsilon is a line in the middle, with readable tick labels.
    spread = [epsilon + side for epsilon in (*epochs[0].epsilon, *epochs[-1].epsilon) for side in (-0.5, 0.5)]
    axes.update_datalim([(x[0], edge) for edge in spread])
    axes.autoscale_view(scalex=False)
    axes.set_ylabel("ε")
