"""The common style of all figures: colours that are distinguishable for colour-blind people, labels, and layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect

# The colours of Okabe and Ito's palette that are readable on white.
BLACK, GREY = "#000000", "#8c8c8c"
ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"

# Colour is never the only distinction: lines also have dash patterns, points have markers, areas have hatches.
DASHES: tuple[tuple[int, tuple[float, ...]], ...] = (
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v")
HATCHES = ("", "///", "...", "\\\\\\", "xx")

PT = "$P_t$"
GRADIENT = r"$-\partial L/\partial P_t$"


def new_figure(
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (7.0, 4.2),
    heights: Sequence[float] | None = None,
) -> Figure:
    """Return an empty figure with constrained layout, without using pyplot.

    Raises:
        ModuleNotFoundError: if matplotlib is missing; the message names the extra to install.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Drawing figures needs matplotlib: pip install 'polyloss-lightning[cli]'") from error
    figure = Figure(figsize=size, layout="constrained")
    figure.subplots(rows, columns, height_ratios=heights)
    return figure


def finish(figure: Figure, title: str, grid: Literal["both", "y"] = "both") -> Figure:
    """Add a title, a light grid, and a common legend below the axes, where it hides no data."""
    figure.suptitle(title, fontsize="medium")
    figure.align_ylabels()
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        entries.update((label, handle) for handle, label in zip(handles, labels, strict=True) if label not in entries)
    if entries:
        column = 0.7 + 0.065 * max(map(len, entries))  # width of a handle and of the longest label, in inches
        columns = max(1, min(4, len(entries), int(figure.get_figwidth() / column)))
        rows = -(-len(entries) // columns)
        figure.set_figheight(figure.get_figheight() + 0.18 * max(0, rows - 2))  # a long legend must not shrink the axes
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=columns,
            fontsize="small",
            frameon=False,
        )
    return figure


def epoch_axis(axes: Axes, epochs: Sequence[int]) -> None:
    """Label the x axis with whole epochs, and make it wide enough even for a single epoch."""
    from matplotlib.ticker import MaxNLocator

    beyond = 0.5 if len(epochs) > 1 else 2.0
    axes.set_xlim(epochs[0] - beyond, epochs[-1] + beyond)
    if len(epochs) == 1:
        axes.set_xticks(epochs)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.set_xlabel("epoch")


def shades(count: int) -> list[tuple[float, ...]]:
    """Return ``count`` colours from dark to light, taken from viridis without its faint end."""
    from matplotlib import colormaps

    return [tuple(colormaps["viridis"](0.1 + 0.75 * index / max(count - 1, 1))) for index in range(count)]


def halo() -> list[AbstractPathEffect]:
    """Return a white outline, which keeps a line readable on a filled area of any colour."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3.5, foreground="white")]


def marker_for(marker: str, points: int) -> str:
    """Return ``marker`` if the line has few enough points to distinguish them, and no marker otherwise."""
    return marker if points <= 15 else ""


def epsilon_label(epsilon: Sequence[float]) -> str:
    """Return a label such as ``ε = 2`` or, for Poly-N, ``ε = (1, −0.5)``.

    Example:
        >>> epsilon_label([2.0]), epsilon_label([1.0, -0.5])
        ('ε = 2', 'ε = (1, −0.5)')
    """
    numbers = ", ".join(f"{number:.3g}" for number in epsilon).replace("-", "−")
    return f"ε = {numbers}" if len(epsilon) == 1 else f"ε = ({numbers})"


def short_name(name: str, length: int = 16) -> str:
    """Return ``name`` on one line and with at most ``length`` characters, ending in ``…`` if it was cut.

    A ``$`` would begin a formula, so it is escaped.

    Example:
        >>> short_name("red fox"), short_name("American Staffordshire terrier")
        ('red fox', 'American Staffo…')
    """
    line = " ".join(name.split())
    cut = line if len(line) <= length else line[: length - 1].rstrip() + "…"
    return cut.replace("$", r"\$")
