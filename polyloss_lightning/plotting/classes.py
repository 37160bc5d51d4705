"""The figure of the values per class, which shows how the first term favors frequent classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polyloss_lightning._class_groups import head_middle_tail
from polyloss_lightning.plotting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from polyloss_lightning.record import ClassRecord

# Up to 60 classes are drawn as separate bars with marks. Up to 30 classes also have their name or index on the axis.
_SEPARATE, _NUMBERED = 60, 30

# Field, label, factor, and the smallest upper limit of the axis.
_PANELS = (
    ("pt", f"mean {style.PT}", 1.0, 1.0),
    ("first_term_share", f"first term's share\nof {style.GRADIENT} (%)", 100.0, 100.0),
    ("first_term_gradient", f"first term of\n{style.GRADIENT} (nats)", 1.0, 0.0),
)


def classes_figure(
    start: ClassRecord | None,
    end: ClassRecord,
    class_counts: Sequence[float] | None,
    title: str = "",
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draw mean Pt, first-term share and first-term gradient of each class, most frequent class first.

    Head, middle and tail are the thirds of the classes by training count, as in the logged values.

    Args:
        start: values of an early epoch, drawn as ticks; None draws no ticks.
        end: values drawn as bars.
        class_counts: number of training samples of each class; None keeps the classes in index order, in one group.
        title: title of the figure.
        class_names: name of each class, shown for up to 30 classes; None uses the indices.
    """
    number = len(end.pt)
    names = [str(index) for index in range(number)] if class_names is None else list(map(style.short_name, class_names))
    turned = max(map(len, names)) > 2  # by 90 degrees, so that long names stay clear of each other
    order = sorted(range(number), key=lambda index: -class_counts[index] if class_counts else 0.0)
    groups = head_middle_tail(class_counts or ()) or {"all": order}
    figure = style.new_figure(len(_PANELS), 1, (7.5, 7.0))
    for axes, (name, label, factor, top) in zip(figure.axes, _PANELS, strict=True):
        _draw_bars(axes, [factor * getattr(end, name)[index] for index in order], groups)
        if start is not None:
            _draw_marks(axes, [factor * getattr(start, name)[index] for index in order], "first epoch", "_", "--")
        if (
            class_counts and sum(class_counts) > 0 and name == "first_term_gradient"
        ):  # its value for plain cross-entropy at any time
            frequency = [class_counts[index] / sum(class_counts) for index in order]
            _draw_marks(axes, frequency, "training frequency", "D", ":")
        axes.update_datalim([(0.0, 0.0), (0.0, top)])
        axes.autoscale_view(scalex=False)
        axes.set_xlim(-0.6, number - 0.4)
        if number <= _NUMBERED:
            axes.set_xticks(range(number), [names[index] for index in order], rotation=90 if turned else 0)
        axes.tick_params(labelbottom=axes is figure.axes[-1])
        axes.set_ylabel(label)
    what = "class" if number <= _NUMBERED or not class_counts else "rank of the class"
    figure.axes[-1].set_xlabel(f"{what}, ordered by training count, largest first" if class_counts else what)
    return style.finish(figure, title, grid="y")


def _draw_marks(axes: Axes, heights: Sequence[float], label: str, marker: str, dash: str) -> None:
    look: dict[str, Any] = {"linestyle": dash, "linewidth": 1.5}
    if len(heights) <= _SEPARATE:
        size = min(12.0, 300.0 / len(heights)) / (2 if marker == "D" else 1)
        look = {"linestyle": "", "marker": marker, "markersize": size, "markerfacecolor": "white"}
    axes.plot(heights, color=style.BLACK, label=label, path_effects=style.halo(), **look)


def _draw_bars(axes: Axes, heights: Sequence[float], groups: Mapping[str, Sequence[int]]) -> None:
    """Draw the bars with one artist per group of classes, which is fast even for thousands of classes."""
    width = 0.8 if len(heights) <= _SEPARATE else 1.0
    looks = zip((style.BLUE, style.ORANGE, style.GREEN), ("", "///", "..."), strict=True)
    start = 0
    for (name, members), (colour, hatch) in zip(groups.items(), looks, strict=False):
        edges, values = [], []
        for position in range(start, start + len(members)):
            edges += [position - width / 2, position + width / 2]
            values += [heights[position], math.nan]  # the NaN is the gap between two bars
        axes.stairs(
            values[:-1], edges, fill=True, facecolor=colour, edgecolor="white", hatch=hatch, label=f"{name} classes"
        )
        start += len(members)
