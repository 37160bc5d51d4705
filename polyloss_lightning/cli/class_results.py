"""The values of single classes at the end of a run: gathered from metrics, and written as a CSV file."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from polyloss_lightning import _files

# Matches val/recall_class/3, a value of class 3, but not val/top_5 or val/poly/term_3.
_CLASS_METRIC = re.compile(r"^(?P<name>.+)_class/(?P<index>\d+)$")


@dataclass(frozen=True)
class ClassResults:
    """Values by metric and class.

    Attributes:
        values: for each metric, the value of each class that has one.
        names: name of each class; the index if there is none.
        counts: number of training samples of each class, if known.
    """

    values: Mapping[str, Mapping[int, float]]
    names: Sequence[str] = field(default=())
    counts: Sequence[float] = field(default=())

    @property
    def classes(self) -> list[int]:
        """Indices of the classes that have a value or a count."""
        return sorted({index for values in self.values.values() for index in values} | set(range(len(self.counts))))

    def name(self, index: int) -> str:
        """Return the name of a class."""
        return self.names[index] if index < len(self.names) else str(index)

    def count(self, index: int) -> str:
        """Return the number of training samples of a class, or an empty string."""
        return f"{self.counts[index]:.10g}" if index < len(self.counts) else ""

    def mean(self, metric: str, classes: Sequence[int]) -> float:
        """Return the mean of a metric over those of ``classes`` that have a value; NaN if there is none."""
        values = [self.values[metric].get(index, math.nan) for index in classes]
        finite = [value for value in values if not math.isnan(value)]
        return sum(finite) / len(finite) if finite else math.nan

    def write(self, path: str) -> None:
        """Write one row per class."""
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(["index", "class", "training_samples", *self.values])
        for index in self.classes:
            cells = [values.get(index, math.nan) for values in self.values.values()]
            row = [f"{value:.6g}" if math.isfinite(value) else "" for value in cells]
            writer.writerow([index, self.name(index), self.count(index), *row])
        _files.write(path, table.getvalue().encode())


def split_classes(
    metrics: Mapping[str, Tensor | float], vectors: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, float], dict[str, dict[int, float]]]:
    """Return the scalars among ``metrics``, and the values of classes by metric and index.

    Args:
        metrics: scalars by name; a name that ends in ``_class/`` and an index is a value of that class.
        vectors: more values of classes, one entry per class.

    Example:
        >>> split_classes({"test/pt": 0.5, "test/recall_class/1": 1.0})
        ({'test/pt': 0.5}, {'test/recall': {1: 1.0}})
    """
    scalars: dict[str, float] = {}
    classes: dict[str, dict[int, float]] = {}
    for name, value in metrics.items():
        match = _CLASS_METRIC.match(name)
        if match:
            classes.setdefault(match["name"], {})[int(match["index"])] = float(value)
        else:
            scalars[name] = float(value)
    for name, vector in (vectors or {}).items():
        if vector.dim() == 1:
            classes.setdefault(name, dict(enumerate(vector.tolist())))
    return scalars, classes
