"""From per-class vectors to what is logged: one value a class, and the thirds of the classes by training count."""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import TypeAlias

import lightning.pytorch as pl

from polyloss_lightning.class_groups import thirds
from polyloss_lightning.record import ClassRecord

Vectors: TypeAlias = dict[str, list[float]]
_NAMES = ("pt", "first_term_share", "first_term_gradient")


def class_values(values: Vectors, counts: Sequence[float] | None) -> dict[str, float]:
    """``{name}_class/{k}`` for the classes that had any weight, and ``{name}_head``, ``_middle`` and ``_tail``.

    A third's Pt and share are weighted means over its entries, its gradient is the sum over its classes.

    Args:
        values: the ``class_...`` vectors of :class:`~polyloss_lightning.metrics.PolynomialTerms`, as lists.
        counts: training samples of each class, if known.
    """
    weight = values["class_weight"]
    seen = [k for k, total in enumerate(weight) if total > 0]
    result = {f"{name}_class/{k}": values[f"class_{name}"][k] for name in _NAMES for k in seen}
    for third, classes in thirds(counts or ()).items():
        present = [k for k in classes if weight[k] > 0]
        total = sum(weight[k] for k in present)
        for name in _NAMES:
            vector = values[f"class_{name}"]
            if name == "first_term_gradient":
                result[f"{name}_{third}"] = sum(vector[k] for k in classes)
            elif total > 0:
                result[f"{name}_{third}"] = sum(weight[k] * vector[k] for k in present) / total
    return result


def class_record(values: Vectors) -> ClassRecord:
    """The same vectors as they go into the record."""
    return ClassRecord(*(values[f"class_{field.name}"] for field in fields(ClassRecord)))


def counts_seen(values: Vectors) -> list[float] | None:
    """Training count of each class from what the loss saw: entries, or weight where each class has as many entries.

    Entries are right for class indices, whatever the class weights. Soft and smoothed targets give every class an
    entry a sample, and the weight tells them apart. None if that does not either.
    """
    for name in ("class_count", "class_weight"):
        counts = values[name]
        if max(counts) - min(counts) > 1e-6 * max(counts):
            return counts
    return None


def given_counts(trainer: pl.Trainer) -> list[float] | None:
    """``class_counts`` of the datamodule, if it has them."""
    counts = getattr(getattr(trainer, "datamodule", None), "class_counts", None)
    return None if counts is None else [float(count) for count in counts]


def find_num_classes(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    """``num_classes`` of the datamodule or the module.

    Raises:
        ValueError: if neither says.
    """
    for holder in (getattr(trainer, "datamodule", None), pl_module, getattr(pl_module, "hparams", None)):
        number = getattr(holder, "num_classes", None)
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    raise ValueError(
        "`per_class=True` needs the number of classes: give PolynomialTermMonitor(num_classes=...), or the datamodule "
        f"`class_counts`, or the datamodule or {type(pl_module).__name__} an attribute `num_classes`"
    )


def check_classes(values: Vectors) -> None:
    """Raise ``ValueError`` if entries of a class beyond the last one were seen."""
    total, found = sum(values["pt_histogram"]), sum(values["class_weight"])
    if not math.isclose(total, found, rel_tol=1e-5):
        raise ValueError(
            f"`num_classes` must be the number of classes of the loss, got {len(values['class_weight'])}: "
            f"{1 - found / total:.2%} of the targets (by weight) are beyond them"
        )
