"""The figures of the report about how the settings train: learning curves, terms and the losses themselves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from polyloss_lightning.plotting import style
from polyloss_lightning.search.report.data import Report
from polyloss_lightning.search.report.figures import INK, Illustration, finish, new_figure, plain, setting_axis

_COLORS = (INK, style.ORANGE, style.SKY, style.GREEN, style.BLUE, style.VERMILLION, style.PURPLE, style.GREY)


def training_figures(report: Report) -> list[Illustration]:
    """Draw what the runs recorded; a figure without data is left out."""
    metric = next((run.outcome["metric"] for run in report.runs if run.value is not None), "")
    figures = [
        _curves(report, metric, f"Learning curves: {metric}", metric.rpartition("/")[2].replace("_", " ")),
        _terms(report),
        _curves(report, "train/poly/first_term_share", "First term's share of the gradient", "first-term share"),
        _classes(report),
        _curves(report, "val/calibration_error", "Expected calibration error", "calibration error"),
        _losses(report),
    ]
    return [figure for figure in figures if figure is not None]


def _shown(report: Report) -> list[str]:
    """Return the baseline and the candidates, without the controls."""
    return [report.plan.baseline, *(setting.name for setting in report.plan.candidates)]


def _curves(report: Report, metric: str, title: str, label: str) -> Illustration | None:
    series = {name: _mean_history(report, name, metric) for name in _shown(report)}
    series = {name: values for name, values in series.items() if values}
    if not series:
        return None
    figure = new_figure(3.3 + 0.16 * len(series))
    (axes,) = figure.axes
    for index, (name, values) in enumerate(series.items()):
        axes.plot(range(1, len(values) + 1), values, label=plain(name), **_look(index))
    axes.set_xlabel("epoch")
    style.epoch_axis(axes, range(1, max(map(len, series.values())) + 1))
    axes.set_ylabel(plain(label))
    finish(figure, columns=2)
    last = "; ".join(f"{name}: {values[-1]:.3g}" for name, values in series.items())
    return Illustration(_slug(title), title, figure, "Mean over the explore seeds.", f"Last epoch: {last}")


def _terms(report: Report) -> Illustration | None:
    names = [f"train/poly/term_{number}" for number in range(1, 10)] + ["train/poly/tail"]
    table = {
        setting: {name: values[-1] for name in names if (values := _mean_history(report, setting, name))}
        for setting in _shown(report)
    }
    table = {setting: terms for setting, terms in table.items() if terms}
    if not table:
        return None
    present = [name for name in names if any(name in terms for terms in table.values())]
    figure = new_figure(1.3 + 0.3 * len(table))
    (axes,) = figure.axes
    ends = {setting: [0.0, 0.0] for setting in table}  # of the negative and of the positive part
    for index, name in enumerate(present):
        for row, (setting, terms) in enumerate(table.items()):
            value = terms.get(name, 0.0)
            axes.barh(
                row,
                value,
                left=ends[setting][value > 0],
                height=0.7,
                color=_COLORS[1 + index % 7],
                edgecolor=INK,
                linewidth=0.3,
                hatch=style.HATCHES[index % len(style.HATCHES)],
                label=None if row else name.rpartition("/")[2].replace("_", " "),
            )
            ends[setting][value > 0] += value
    setting_axis(axes, list(table))
    axes.set_xlabel("contribution to the training loss")
    finish(figure, columns=4)
    first = "; ".join(f"{name}: term 1 {terms.get('train/poly/term_1', 0.0):.3g}" for name, terms in table.items())
    caption = "Mean over the explore seeds in the last epoch."
    return Illustration("terms", "Contribution of the terms", figure, caption, first)


def _classes(report: Report) -> Illustration | None:
    series: dict[str, list[float]] = {}
    for name in _shown(report):
        runs = [run.outcome["metrics"] for run in report.of_setting(name, "explore")]
        # Rank 0 is the most frequent class of a run, which differs between seeds.
        orders = [
            sorted(range(len(run.outcome["class_counts"])), key=lambda k, run=run: -run.outcome["class_counts"][k])  # type: ignore[misc]
            for run in report.of_setting(name, "explore")
        ]
        ranks = min(map(len, orders), default=0)
        values = [
            _mean(
                metrics.get(f"val/poly/pt_class/{order[rank]}", math.nan)
                for metrics, order in zip(runs, orders, strict=True)
            )
            for rank in range(ranks)
        ]
        if values and all(map(math.isfinite, values)) and len(values) <= 100:
            series[name] = values
    if not series:
        return None
    figure = new_figure(3.3 + 0.16 * len(series))
    (axes,) = figure.axes
    for index, (name, values) in enumerate(series.items()):
        axes.plot(range(1, len(values) + 1), values, label=plain(name), **_look(index, marker=True))
    axes.set_xlabel("class, from the most frequent to the rarest")
    axes.set_ylabel("mean $P_t$ on the validation part")
    finish(figure, columns=2)
    text = "; ".join(
        f"{name}: {values[0]:.2f} for the most frequent class, {values[-1]:.2f} for the rarest"
        for name, values in series.items()
    )
    return Illustration("classes", "Mean Pt per class", figure, "Mean over the explore seeds.", text)


def _losses(report: Report) -> Illustration | None:
    epsilons = [s.position for s in report.plan.settings if s.grid == "epsilon" and s.position is not None]
    if len(epsilons) < 2 or "focal" in report.plan[report.plan.baseline].phrase:  # which has another formula
        return None
    figure = new_figure(3.4, columns=2)
    value, gradient = figure.axes
    grid = [index / 200 for index in range(2, 201)]
    for index, epsilon in enumerate(epsilons):
        look = _look(index)
        value.plot(grid, [-math.log(p) + epsilon * (1 - p) for p in grid], label=f"epsilon {epsilon:g}", **look)
        gradient.plot(grid, [(1 - p) * (1 + epsilon * p) for p in grid], **look)
    value.set_ylim(-0.2, 6)
    for axes, label in ((value, "loss"), (gradient, r"$-\partial L/\partial z_t$")):
        axes.set_xlabel("$P_t$")
        axes.set_title(label)
    finish(figure, columns=3)
    caption = (
        "Left: Poly-1 cross-entropy, -log Pt + epsilon (1 - Pt). Right: the strength of its gradient with respect "
        "to the target's logit, (1 - Pt)(1 + epsilon Pt)."
    )
    return Illustration("losses", "The losses", figure, caption, f"Epsilon {', '.join(f'{e:g}' for e in epsilons)}")


def _mean_history(report: Report, setting: str, metric: str) -> list[float]:
    histories = [run.outcome["history"].get(metric, []) for run in report.of_setting(setting, "explore")]
    length = min(map(len, histories), default=0)
    return [_mean(history[epoch] for history in histories) for epoch in range(length)]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(list(values))


def _look(index: int, *, marker: bool = False) -> dict[str, Any]:
    markers: Sequence[str] = style.MARKERS
    return {
        "color": _COLORS[index % len(_COLORS)],
        "linestyle": "-" if index == 0 else style.DASHES[(index - 1) % len(style.DASHES)],
        "linewidth": 1.4,
        "marker": markers[index % len(markers)] if marker else "",
        "markersize": 3.5,
    }


def _slug(title: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in title.lower())
