"""From one value an entry to the loss: class sum, then none, mean or sum by torch's rules."""

from typing import Literal, TypeAlias, get_args

from torch import Tensor

from polyloss_lightning.links import Entries

Reduction: TypeAlias = Literal["none", "mean", "sum"]
_REDUCTIONS = get_args(Reduction)  # here, because torch.compile of torch 2.6 does not trace it


def check_reduction(reduction: str) -> None:
    """Raise ``ValueError`` unless ``reduction`` is one of torch's three."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"`reduction` must be one of {_REDUCTIONS}, got {reduction!r}")


def reduce(value: Tensor, entries: Entries, reduction: Reduction) -> Tensor:
    """Weigh the value of each entry, sum over classes and reduce.

    Args:
        value: value of the polynomial for each entry.
        entries: the entries that ``value`` was computed from.
        reduction: ``"none"`` gives one loss a sample, ``"sum"`` their sum, ``"mean"`` the sum divided by
            ``entries.denominator``: the total weight of the targets that count for class indices, the number of
            samples for probabilities. Without any target that counts, ``mean`` is NaN and ``sum`` is 0, as in torch.
    """
    loss = value * entries.weight
    if reduction == "none":
        loss = loss if entries.class_dim is None else loss.sum(entries.class_dim)
    else:
        loss = loss.sum()
        if reduction == "mean":
            loss = loss / entries.denominator
    return loss if loss.dtype == entries.dtype else loss.to(entries.dtype)
