"""From per-class vectors to what is logged: one value a class, and the thirds of the classes by training count."""

from collections.abc import Sequence
from dataclasses import fields
from typing import TypeAlias

import lightning.pytorch as pl

from polyloss_lightning.class_groups import thirds
from polyloss_lightning.core import Observable
from polyloss_lightning.losses import Poly1CrossEntropyLoss, Poly1FocalLoss
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


def counts_seen(values: Vectors, loss: Observable) -> list[float] | None:
    """Training count of each class from what ``loss`` saw in an epoch, or None if that does not tell.

    A softmax loss says what its class weights and its smoothing are: without them its weights are counts, for
    class indices, soft and smoothed targets alike. Of another loss only the number of entries is known, which is the
    same for every class where each sample has an entry of each class; then nothing tells.
    """
    counts = _unweighted(values["class_weight"], loss) or values["class_count"]
    present = [count for count in counts if count > 0]
    told = len(present) > 1 and max(present) - min(present) > 1e-6 * max(present)
    return counts if told else None


def _unweighted(weight: Sequence[float], loss: Observable) -> list[float] | None:
    """Samples of each class, where ``loss`` says what turned them into ``weight``."""
    if not isinstance(loss, Poly1CrossEntropyLoss | Poly1FocalLoss):
        return None
    size, smoothing = len(weight), loss.label_smoothing
    factors = [1.0] * size if loss.weight is None else loss.weight.tolist()
    if len(factors) != size or min(factors) <= 0 or smoothing == 1:
        return None
    targets = [total / factor for total, factor in zip(weight, factors, strict=True)]
    spread = smoothing * sum(targets) / size
    return [round(max(0.0, target - spread) / (1 - smoothing), 3) for target in targets]


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
    if total - found > 1e-5 * total:  # not so where a weight is NaN
        raise ValueError(
            f"`num_classes` must be the number of classes of the loss, got {len(values['class_weight'])}: "
            f"{1 - found / total:.2%} of the targets (by weight) are beyond them"
        )
