"""The lines of the file: writing one as JSON, and finding out which lines of a file are intact."""

import json
import math
from dataclasses import fields
from typing import Any, NamedTuple

from polyloss_lightning.record.epochs import ClassRecord, EpochRecord

RECORD_NAME = "poly_terms.jsonl"
FORMAT, VERSION = "polyloss_lightning.terms", 1


class Contents(NamedTuple):
    """What a file contains.

    Attributes:
        header: the fields of the header without format and version; empty if the header is not intact.
        lines: the intact lines below the header.
        epochs: what they contain.
        damage: what is wrong with the file; empty if nothing is.
    """

    header: dict[str, Any]
    lines: list[bytes]
    epochs: list[EpochRecord]
    damage: str


def parse(data: bytes, path: str) -> Contents:
    """Return what the file at ``path`` contains, whatever its bytes ``data`` are."""
    first, *others = data.splitlines(keepends=True) or [b""]
    header, damage = _header(first), ""
    if header is None:
        damage = f"{path} is not a record of polynomial terms: its first line must contain {FORMAT!r}"
    elif (version := header.pop("version")) > VERSION:
        return Contents({}, [], [], f"{path} has version {version}, but this package supports up to {VERSION}")
    epochs = [_epoch(line) for line in others]
    damaged = [str(number) for number, epoch in enumerate(epochs, start=2) if epoch is None]
    if damaged and not damage:
        damage = f"{path} is damaged in line {', '.join(damaged[:5])}{' and others' if len(damaged) > 5 else ''}"
    intact = [(line, epoch) for line, epoch in zip(others, epochs, strict=True) if epoch is not None]
    return Contents(header or {}, [line for line, _ in intact], [epoch for _, epoch in intact], damage)


# What reading a line of any bytes may raise; a deeply nested one raises RecursionError.
_ERRORS = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


def _header(line: bytes) -> dict[str, Any] | None:
    """Return the fields of the first line, or None if it is not the header of a record."""
    try:
        values = _decode(line)
        counts, names = values["class_counts"], values.get("class_names")
        header = {
            "version": _whole(values["version"]),
            "class_counts": None if counts is None else list(_numbers(counts)),
            "class_names": None if names is None else [_typed(name, str) for name in _typed(names, list)],
        }
    except _ERRORS:
        return None
    return header if values.get("format") == FORMAT else None


def _epoch(line: bytes) -> EpochRecord | None:
    """Return what the line contains, or None if it is damaged."""
    try:
        values = _decode(line)
        terms, classes = values["num_terms"], values["classes"]
        return EpochRecord(
            stage=_typed(values["stage"], str),
            loss=_typed(values["loss"], str),
            epoch=_whole(values["epoch"]),
            step=_whole(values["step"]),
            epsilon=_numbers(values["epsilon"]),
            gamma=_number(values["gamma"]),
            num_terms=None if terms is None else _whole(terms),
            metrics={name: _number(value) for name, value in values["metrics"].items()},
            pt_histogram=_numbers(values["pt_histogram"]),
            classes=None if classes is None else ClassRecord(*(_numbers(classes[f.name]) for f in fields(ClassRecord))),
        )
    except _ERRORS:
        return None


def encode(values: dict[str, Any]) -> bytes:
    """Return a line of the file; numbers that are not finite become null."""
    return json.dumps(_finite(values)).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ValueError("incomplete")
    values: dict[str, Any] = _typed(json.loads(line), dict)
    return values


def _typed(value: Any, kind: type | tuple[type, ...]) -> Any:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{type(value)} is not {kind}")
    return value


def _whole(value: Any) -> int:
    return int(_typed(value, int))


def _number(value: Any) -> float:
    return math.nan if value is None else float(_typed(value, (int, float)))


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(_number(value) for value in _typed(values, list))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
