"""Turning per-class vectors into logged values: one per class, and one each for head, middle and tail classes."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import lightning.pytorch as pl

from polyloss_lightning._class_groups import head_middle_tail
from polyloss_lightning.callbacks.trainer.find_losses import Observable
from polyloss_lightning.losses import Poly1CrossEntropyLoss, Poly1FocalLoss

Vectors: TypeAlias = dict[str, list[float]]  # of PolynomialTerms, such as class_pt
MOST_CLASSES = 100  # with more, Lightning's log() takes seconds for a value per class
_NAMES = ("pt", "first_term_share", "first_term_gradient")


def class_values(values: Vectors, counts: Sequence[float] | None) -> dict[str, float]:
    """Return ``{name}_class/{k}`` for each class with nonzero weight, and ``{name}_head``, ``_middle`` and ``_tail``.

    With more than :data:`MOST_CLASSES` classes there are only the values of head, middle and tail, by the training
    ``counts`` if these are known. Pt and the first-term share of a group of classes are weighted means over its
    entries. Its gradient is the sum over its classes.
    """
    weight = values["class_weight"]
    seen = [k for k, total in enumerate(weight) if total > 0] if len(weight) <= MOST_CLASSES else []
    result = {f"{name}_class/{k}": values[f"class_{name}"][k] for name in _NAMES for k in seen}
    for group, classes in head_middle_tail(counts or ()).items():
        present = [k for k in classes if weight[k] > 0]
        if present:
            total = sum(weight[k] for k in present)
            for name in ("pt", "first_term_share"):
                result[f"{name}_{group}"] = sum(weight[k] * values[f"class_{name}"][k] for k in present) / total
        result[f"first_term_gradient_{group}"] = sum(values["class_first_term_gradient"][k] for k in classes)
    return result


def counts_seen(values: Vectors, loss: Observable) -> list[float] | None:
    """Return the training count of each class as derived from one epoch of ``loss``, or None if it is not known.

    For a softmax loss the counts follow from the total weight of each class, once the class weights and the label
    smoothing of the loss are divided out. This holds for class indices, soft targets and smoothed targets alike. For
    any other loss only the number of entries per class is known. If every sample has an entry for each class, these
    numbers are all equal and contain no information, so the result is None.
    """
    weight, counts = values["class_weight"], values["class_count"]
    if isinstance(loss, Poly1CrossEntropyLoss | Poly1FocalLoss):
        size, smoothing = len(weight), loss.label_smoothing
        factors = [1.0] * size if loss.weight is None else loss.weight.tolist()
        if len(factors) == size and min(factors) > 0 and smoothing < 1:
            targets = [total / factor for total, factor in zip(weight, factors, strict=True)]
            spread = smoothing * sum(targets) / size
            counts = [round(max(0.0, target - spread) / (1 - smoothing), 3) for target in targets]
    present = [count for count in counts if count > 0]
    differ = len(present) > 1 and max(present) - min(present) > 1e-6 * max(present)
    return counts if differ else None


def given_names(trainer: pl.Trainer) -> list[str] | None:
    """Return the ``class_names`` of the datamodule as strings, or None if it has none."""
    names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
    return None if names is None else [str(name) for name in names]


def given_counts(trainer: pl.Trainer) -> list[float] | None:
    """Return the ``class_counts`` of the datamodule, or None if it has none."""
    counts = getattr(getattr(trainer, "datamodule", None), "class_counts", None)
    if not isinstance(counts, Mapping):
        return None if counts is None else [float(count) for count in counts]
    wrong = [key for key in counts if isinstance(key, bool) or not isinstance(key, Integral) or key < 0]
    if wrong:
        raise ValueError(
            "`class_counts` of the datamodule must be one count per class, or a mapping from the index of each class "
            f"to its count, got {wrong[0]!r} as an index"
        )
    return [float(counts.get(k, 0)) for k in range(max(counts, default=-1) + 1)]


def find_num_classes(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    """Return the attribute ``num_classes`` of the datamodule or of the module, or raise ``ValueError``."""
    for holder in (getattr(trainer, "datamodule", None), pl_module, getattr(pl_module, "hparams", None)):
        number: Any = getattr(holder, "num_classes", None)
        if not isinstance(number, bool) and isinstance(number, Integral):
            return int(number)
    raise ValueError(
        "`per_class=True` needs the number of classes: pass PolynomialTermMonitor(num_classes=...), or define "
        f"`class_counts` on the datamodule, or `num_classes` on the datamodule or on {type(pl_module).__name__}"
    )


def check_classes(values: Vectors) -> None:
    """Raise ``ValueError`` if some entries have a class index beyond the last class."""
    total, found = sum(values["pt_histogram"]), sum(values["class_weight"])
    if total - found > 1e-5 * total:  # False if a weight is NaN
        raise ValueError(
            f"`num_classes` must be the number of classes of the loss, got {len(values['class_weight'])}: "
            f"{1 - found / total:.2%} of the targets (by weight) have a higher class index"
        )
