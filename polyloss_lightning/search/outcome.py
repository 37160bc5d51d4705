"""One run of a search: calls the objective and reads the value that decides."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from polyloss_lightning.search.fit import Trainable
from polyloss_lightning.search.monitor import find_monitor, of_test_part
from polyloss_lightning.search.plan import Pair

# Called with the value of a setting and a seed.
Objective: TypeAlias = Callable[[Any, int], "float | Mapping[str, float] | Trainable"]


@dataclass(frozen=True)
class Outcome:
    """What a run measured.

    Attributes:
        value: the number that decides.
        metric: its name; empty if the objective returned a number.
        metrics: all metrics of the run.
        history: metrics by epoch.
        class_counts: number of training samples of each class, if known.
        seconds: duration of the run.
    """

    value: float
    metric: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    class_counts: list[float] = field(default_factory=list)
    seconds: float = 0.0


def execute(objective: Objective, value: Any, pair: Pair, monitor: str | None) -> Outcome:
    """Run ``objective`` for one setting and seed.

    Args:
        objective: returns the number that decides, all metrics by name, or a
            :class:`~polyloss_lightning.search.Fit` to be trained.
        value: what the objective is called with, beside the seed.
        pair: the run. In the confirm phase the number of the test part decides, if there is a test part.
        monitor: name of the metric that decides; None for an objective that returns a number, or to choose a metric
            that does not depend on epsilon.

    Raises:
        TypeError: if the objective returns something else.
        ValueError: if the number that decides is not finite, or ``monitor`` is not a metric of the run.
    """
    began = time.perf_counter()
    result = objective(value, pair.seed)
    history: dict[str, list[float]] = {}
    counts: list[float] = []
    if isinstance(result, Trainable):
        fitted = result.run(test=pair.phase == "confirm")
        metrics, counts = fitted.metrics, fitted.class_counts
        history = {name: [float(f"{value:.5g}") for value in values] for name, values in fitted.history.items()}
    elif isinstance(result, Mapping):
        metrics = {name: float(number) for name, number in result.items()}
    else:
        try:
            number = float(result)
        except (TypeError, ValueError):
            raise TypeError(
                f"the objective must return a number, a mapping of metrics or a Fit, got {type(result).__name__}"
            ) from None
        return Outcome(_finite(number, "the value"), seconds=time.perf_counter() - began)
    metric = find_monitor(metrics, monitor)
    tested = of_test_part(metric)
    if pair.phase == "confirm" and tested in metrics:
        metric = tested
    return Outcome(_finite(metrics[metric], metric), metric, metrics, history, counts, time.perf_counter() - began)


def _finite(number: float, name: str) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}")
    return number
