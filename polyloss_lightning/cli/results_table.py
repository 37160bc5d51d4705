"""The tables at the end of a run: one row per metric, one row per class, and one row per group of classes."""

import math
from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from polyloss_lightning.cli.class_results import ClassResults

# With more classes than this, only the worst ones are shown.
_MOST_CLASSES, _WORST = 20, 10


def metrics_table(metrics: Mapping[str, float], title: str) -> Table:
    """Return a table with one row per metric.

    Example:
        >>> from rich import print
        >>> print(metrics_table({"test/pt": 0.91234}, "test part"))
                  test part
        ┏━━━━━━━━━┳━━━━━━━━┓
        ┃ metric  ┃  value ┃
        ┡━━━━━━━━━╇━━━━━━━━┩
        │ test/pt │ 0.9123 │
        └─────────┴────────┘
    """
    table = Table(title=title)
    table.add_column("metric", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    for name, number in metrics.items():
        table.add_row(escape(name), f"{number:.4g}")
    return table


def classes_table(results: ClassResults, title: str, groups: Mapping[str, Sequence[int]] | None = None) -> Table:
    """Return a table with one row per class, or the ten worst if there are more than 20, and one per group of classes.

    The worst classes are those with the lowest recall, or the lowest value of the first metric if there is no recall.
    The row of a group contains the sum of its training samples and means over its classes.

    Args:
        results: the values.
        title: title of the table.
        groups: indices of the classes of each group.
    """
    shown = results.classes
    if len(shown) > _MOST_CLASSES:
        metric = next((name for name in results.values if name.endswith("recall")), next(iter(results.values)))
        values = results.values[metric]
        scored = [index for index in shown if not math.isnan(values.get(index, math.nan))]
        title = f"{title}: the {_WORST} worst of {len(shown)} classes by {_short(metric)}"
        shown = sorted(scored, key=lambda index: values[index])[:_WORST]
    else:
        title = f"{title}: classes"
    table = Table(title=title)
    labels = {group: f"{group} ({_count(len(classes))})" for group, classes in (groups or {}).items()}
    # Long names of classes may be broken into lines, but the names of groups should not be. Rich does not shrink a
    # column of fixed width.
    width = max(map(len, labels.values()), default=None)
    table.add_column("class", overflow="fold", width=width, max_width=24)
    table.add_column("training samples", justify="right")
    for name in results.values:
        table.add_column(escape(_short(name)), justify="right")
    for index in shown:
        cells = [values.get(index, math.nan) for values in results.values.values()]
        table.add_row(escape(results.name(index)), results.count(index), *map(_cell, cells))
    for number, (group, classes) in enumerate((groups or {}).items()):
        if number == 0:
            table.add_section()
        total = f"{sum(results.counts[index] for index in classes):.10g}"
        means = [results.mean(name, classes) for name in results.values]
        table.add_row(labels[group], total, *map(_cell, means))
    return table


def _count(number: int) -> str:
    return f"{number} class" if number == 1 else f"{number} classes"


def _short(metric: str) -> str:
    """Return the name of a metric without its stage, with spaces, at which a narrow column may break it."""
    return metric.partition("/")[2].removeprefix("poly/").replace("_", " ").replace("/", " ") or metric


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
