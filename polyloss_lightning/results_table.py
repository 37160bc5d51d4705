"""The tables of metrics printed at the end of a run: one row per metric, and one column per class if it has classes."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table
from torch import Tensor

# Matches val/recall_class/3, a value of class 3, but not val/top_5 or val/poly/term_3.
_CLASS_METRIC = re.compile(r"^(?P<name>.+)_class/(?P<index>\d+)$")


def results_table(
    metrics: Mapping[str, Tensor | float], title: str, class_counts: Sequence[int] | None = None
) -> Group:
    """Lay out ``metrics`` as rich tables.

    Args:
        metrics: scalars by name; names that end in ``_class/`` and a class index form a second table.
        title: title of the first table.
        class_counts: number of training samples of each class, shown above the metrics of the classes.

    Example:
        >>> from rich import print
        >>> print(results_table({"test/pt": 0.91234, "test/recall_class/0": 1.0}, "test part"))
                  test part
        ┏━━━━━━━━━┳━━━━━━━━┓
        ┃ metric  ┃  value ┃
        ┡━━━━━━━━━╇━━━━━━━━┩
        │ test/pt │ 0.9123 │
        └─────────┴────────┘
        ...
    """
    scalars: dict[str, float] = {}
    by_class: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for name, value in metrics.items():
        match = _CLASS_METRIC.match(name)
        if match:
            by_class[match["name"]][int(match["index"])] = float(value)
        else:
            scalars[name] = float(value)
    tables = []
    if scalars:
        summary = Table(title=title)
        summary.add_column("metric")
        summary.add_column("value", justify="right")
        for name, number in scalars.items():
            summary.add_row(name, f"{number:.4g}")
        tables.append(summary)
    if by_class:
        classes = sorted({index for values in by_class.values() for index in values})
        per_class = Table(title=f"{title}: classes")
        per_class.add_column("metric")
        for index in classes:
            per_class.add_column(str(index), justify="right")
        if class_counts is not None:
            per_class.add_row(
                "training samples",
                *(str(c) for c in (class_counts[k] if k < len(class_counts) else "" for k in classes)),
            )
        for name, values in by_class.items():
            per_class.add_row(name, *(f"{values[index]:.2f}" if index in values else "" for index in classes))
        tables.append(per_class)
    return Group(*tables)


def only_classes(metrics: Mapping[str, Tensor | float], prefix: str) -> dict[str, Tensor | float]:
    """Return those ``metrics`` whose name starts with ``prefix`` and that are values of a single class."""
    return {name: value for name, value in metrics.items() if name.startswith(prefix) and _CLASS_METRIC.match(name)}
