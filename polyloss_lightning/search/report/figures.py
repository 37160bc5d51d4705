"""The figures of the report about the settings and their difference."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from polyloss_lightning.plotting import style
from polyloss_lightning.search.report.data import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010101"  # replaced by the colour of the text of the page
WIDTH = 4.6


class Illustration(NamedTuple):
    """A figure with its heading, a caption, and its values in words for those who cannot see it."""

    name: str
    title: str
    figure: Figure
    caption: str
    values: str

    @property
    def text(self) -> str:
        """The text alternative."""
        return f"{self.caption} {self.values}."


def plain(text: str) -> str:
    """Return ``text`` for matplotlib, which would read a pair of dollar signs as a formula."""
    return text.replace("$", r"\$")


def new_figure(height: float, columns: int = 1) -> Figure:
    """Return an empty figure whose axes have the colour of the text of the page."""
    figure = style.new_figure(1, columns, (WIDTH, height))
    figure.patch.set_alpha(0.0)
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    return figure


def settings_figure(report: Report) -> Illustration:
    """Draw the value of every run, one row per setting, with different markers for the two phases."""
    names = [setting.name for setting in report.plan.settings if report.of_setting(setting.name)]
    figure = new_figure(0.9 + 0.34 * max(len(names), 3))
    (axes,) = figure.axes
    scale = 100 if report.answer.unit.percent else 1
    baseline = _values(report, report.plan.baseline, "confirm") or _values(report, report.plan.baseline, "explore")
    if len(baseline) > 1:
        mean, sd = scale * statistics.fmean(baseline), scale * statistics.stdev(baseline)
        axes.axvspan(mean - sd, mean + sd, color=style.GREY, alpha=0.2, label="baseline, mean ± sd", linewidth=0)
        axes.axvline(mean, color=style.GREY, linewidth=1.0)
    drawn: set[str] = set()
    for row, name in enumerate(names):
        for phase, color, marker, shift, filled in (
            ("explore", style.ORANGE, "o", -0.12, False),
            ("confirm", style.BLUE, "D", 0.12, True),
        ):
            values = [scale * value for value in _values(report, name, phase)]
            if values:
                axes.plot(
                    values,
                    [row + shift] * len(values),
                    linestyle="none",
                    marker=marker,
                    markersize=5,
                    color=color,
                    markerfacecolor=color if filled else "none",
                    alpha=0.85,
                    label=None if phase in drawn else plain(f"{phase} ({_metric(report, phase)})"),
                )
                axes.plot([statistics.fmean(values)] * 2, [row + shift - 0.2, row + shift + 0.2], color=color)
                drawn.add(phase)
    setting_axis(axes, names)
    axes.set_xlabel(plain(_axis_label(report)))
    finish(figure)
    values_in_words = "; ".join(
        f"{row.setting}, {row.phase}: mean {report.answer.unit.number(row.mean)}, n = {len(row.values)}"
        for row in report.answer.rows
    )
    caption = "One mark for each run. The band is the baseline's mean ± standard deviation on the fresh seeds."
    return Illustration("settings", "Every run", figure, caption, values_in_words)


def difference_figure(report: Report) -> Illustration | None:
    """Draw the paired differences of the pick, with their intervals."""
    comparison = report.answer.comparison
    if comparison is None or not comparison.differences:
        return None
    differences, unit = comparison.differences, report.answer.unit
    scale = 100 if unit.percent else 1
    figure = new_figure(1.3 + 0.5 * len(differences))
    (axes,) = figure.axes
    axes.axvline(0.0, color=INK, linewidth=1.0)
    for row, difference in enumerate(differences):
        axes.plot(
            [scale * value for value in difference.values],
            [row - 0.15] * len(difference.values),
            linestyle="none",
            marker="o",
            markersize=4,
            color=style.SKY,
            alpha=0.85,
            label=None if row else "one seed",
        )
        axes.errorbar(
            scale * difference.mean,
            row + 0.15,
            xerr=[[scale * (difference.mean - difference.low)], [scale * (difference.high - difference.mean)]],
            color=style.BLUE,
            marker="D",
            markersize=5,
            capsize=4,
            label=None if row else f"mean and {100 * (1 - comparison.level):.4g} % interval",
        )
    setting_axis(axes, [f"against\n{difference.against}" for difference in differences])
    axes.set_xlabel(plain(f"gain of {comparison.picks.pick}\n({unit.words})"))
    finish(figure)
    values = "; ".join(f"against {d.against}: {unit.number(d.mean)} ({unit.interval(d)})" for d in differences)
    caption = "Gain of the pick over each other setting, seed by seed. Above 0, the pick is better."
    return Illustration("differences", "Paired differences on the fresh seeds", figure, caption, values)


def finish(figure: Figure, columns: int = 1) -> None:
    """Add a light grid and a legend below, and give lines and text the colour of the page."""
    for axes in figure.axes:
        axes.grid(axis="x", color=style.GREY, alpha=0.3, linewidth=0.6)
        axes.tick_params(colors=INK, labelsize=8)
        for part in (axes.xaxis.label, axes.yaxis.label, axes.title):
            part.set_color(INK)
            part.set_fontsize(8.5)
        for spine in axes.spines.values():
            spine.set_color(INK)
            spine.set_linewidth(0.6)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, fontsize=7.5, frameon=False, labelcolor=INK
        )


def setting_axis(axes: Axes, names: Sequence[str]) -> None:
    """Write the names of settings beside the rows, the first one at the top."""
    axes.set_yticks(range(len(names)), [plain(name).replace(", ", ",\n", 1) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)


def _values(report: Report, setting: str, phase: str) -> list[float]:
    return [run.value for run in report.of_setting(setting, phase) if run.value is not None]


def _metric(report: Report, phase: str) -> str:
    names = {run.outcome["metric"] for run in report.runs if run.value is not None and run.pair.phase == phase}
    return ", ".join(sorted(names)) or "value"


def _axis_label(report: Report) -> str:
    unit = report.answer.unit
    name = unit.metric.rpartition("/")[2].replace("_", " ") or "value"
    return f"{name} (%)" if unit.percent else name
