"""The record of the polynomial terms of a run, a JSON Lines file next to its logs.

The first line of ``poly_terms.jsonl`` is a header. Every other line is one pass over a stage (an epoch) for one loss::

    {"format": "polyloss_lightning.terms", "version": 1, "class_counts": [300, 120, 40]}
    {"stage": "train", "loss": "loss_fn", "epoch": 0, "step": 12, "epsilon": [1.0], "gamma": 0.0, "num_terms": null,
     "metrics": {"term_1": 1.1, ..., "tail": 0.3, "loss": 1.9, "base_loss": 1.3, "correction": 0.6,
                 "first_term_share": 0.5, "pt": 0.4},
     "pt_histogram": [.. 50 numbers ..],
     "classes": {"weight": [..], "pt": [..], "first_term_share": [..], "first_term_gradient": [..]}}

The fields are those of :class:`Record`, :class:`EpochRecord` and :class:`ClassRecord`. JSON has no NaN, so
numbers that are not finite are ``null`` in the file, and are read as NaN. If two lines have the same stage, loss, epoch
and step, the later one counts, because a resumed run repeats the steps after its checkpoint.
"""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RECORD_NAME = "poly_terms.jsonl"
_FORMAT, _VERSION = "polyloss_lightning.terms", 1


@dataclass(frozen=True)
class ClassRecord:
    """Values with one entry per class.

    Attributes:
        weight: total weight of the class's entries.
        pt: weighted mean of Pt; NaN for a class without weight.
        first_term_share: weighted mean of the first term's share of the gradient; NaN for a class without weight.
        first_term_gradient: sum over the class's entries of weight times the first term's part of the gradient
            in Pt, in magnitude, divided by the denominator of the loss.
    """

    weight: Sequence[float]
    pt: Sequence[float]
    first_term_share: Sequence[float]
    first_term_gradient: Sequence[float]


@dataclass(frozen=True)
class EpochRecord:
    """One pass over a stage, for one loss.

    Attributes:
        stage: ``train``, ``val`` or ``test``.
        loss: path of the loss in the module.
        epoch: the trainer's epoch.
        step: the trainer's global step at the end of the pass.
        epsilon: epsilon at the end of the pass, one number per perturbed coefficient.
        gamma: focusing exponent.
        num_terms: number of terms that the loss keeps; None for the whole series.
        metrics: the scalars of :class:`~polyloss_lightning.metrics.PolynomialTerms` by name.
        pt_histogram: weight of the entries in each of 50 equal bins of Pt in [0, 1].
        classes: the values per class, if the run recorded them.
    """

    stage: str
    loss: str
    epoch: int
    step: int
    epsilon: Sequence[float]
    gamma: float
    num_terms: int | None
    metrics: dict[str, float]
    pt_histogram: Sequence[float]
    classes: ClassRecord | None = None


@dataclass(frozen=True)
class Record:
    """The contents of the record of a run.

    Attributes:
        class_counts: number of training samples of each class, if known.
        epochs: the passes in the order in which they ended.
    """

    class_counts: Sequence[float] | None
    epochs: list[EpochRecord]

    def select(self, stage: str | None = None, loss: str | None = None) -> list[EpochRecord]:
        """Return the passes of ``stage`` and ``loss``; None selects all."""
        return [e for e in self.epochs if stage in (None, e.stage) and loss in (None, e.loss)]


class RecordWriter:
    """Writes the record of a run.

    Args:
        log_dir: folder of the record; created if it does not exist.
        append: continue an existing record; False begins a new one.

    Example:
        >>> import tempfile
        >>> epoch = EpochRecord("train", "loss_fn", 0, 12, (1.0,), 0.0, None, {"pt": 0.4}, [0.0] * 50)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     RecordWriter(folder, append=False).write([epoch], class_counts=[30, 10])
        ...     read_record(folder).select("train")[0].metrics
        {'pt': 0.4}
    """

    def __init__(self, log_dir: str | os.PathLike[str], *, append: bool) -> None:
        self.path = Path(log_dir, RECORD_NAME)
        self._class_counts: Sequence[float] | None = None
        self._exists = append and self.path.exists()
        if self._exists:
            header, *lines = _complete_lines(self.path)
            self._class_counts = header["class_counts"]
            self._replace(lines)

    def write(self, epochs: Iterable[EpochRecord], class_counts: Sequence[float] | None = None) -> None:
        """Add ``epochs`` to the file, and ``class_counts`` to its header, even if they become known late."""
        lines = [_finite(asdict(epoch)) for epoch in epochs]
        if self._exists and (class_counts is None or self._class_counts is not None):
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
            return
        self._class_counts = None if class_counts is None else list(class_counts)
        self._replace([*(_complete_lines(self.path)[1:] if self._exists else []), *lines])
        self._exists = True

    def _replace(self, lines: Iterable[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        header = {"format": _FORMAT, "version": _VERSION, "class_counts": self._class_counts}
        scratch = self.path.with_suffix(".tmp")
        with scratch.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in (header, *lines))
        scratch.replace(self.path)


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read the record of a run.

    Args:
        path: the file, or the folder of logs that contains ``poly_terms.jsonl``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a record, or has a newer version than this package supports.
    """
    file = Path(path)
    file = file / RECORD_NAME if file.is_dir() else file
    if not file.exists():
        raise FileNotFoundError(f"no record of polynomial terms at {file}")
    header, *lines = _complete_lines(file)
    epochs = {(e["stage"], e["loss"], e["epoch"], e["step"]): e for e in lines}
    return Record(header["class_counts"], [_epoch(epoch) for epoch in epochs.values()])


def _complete_lines(file: Path) -> list[dict[str, Any]]:
    """Return the header and the lines after it, without an incomplete last line of a run that was killed."""
    with file.open(encoding="utf-8") as text:
        header, *lines = [line for line in text if line.endswith("\n")] or ["null"]
    first = json.loads(header) if header.startswith("{") else {}
    if first.get("format") != _FORMAT:
        raise ValueError(f"{file} is not a record of polynomial terms: its first line must contain {_FORMAT!r}")
    if first["version"] > _VERSION:
        raise ValueError(f"{file} has version {first['version']}, but this package supports versions up to {_VERSION}")
    return [first, *map(json.loads, lines)]


def _epoch(line: dict[str, Any]) -> EpochRecord:
    classes = line["classes"]
    return EpochRecord(
        **{
            **line,
            "epsilon": tuple(line["epsilon"]),
            "metrics": {name: _number(value) for name, value in line["metrics"].items()},
            "pt_histogram": _numbers(line["pt_histogram"]),
            "classes": classes and ClassRecord(**{name: _numbers(values) for name, values in classes.items()}),
        }
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(_number(value) for value in values)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
