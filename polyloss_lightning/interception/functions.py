"""The loss functions of torch that can be replaced, and what their arguments mean as entries."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import _reduction as legacy

from polyloss_lightning.links import Entries, sigmoid_axes, sigmoid_entries, softmax_axes, softmax_entries
from polyloss_lightning.links.entries import output_dtype

LossName: TypeAlias = Literal[
    "cross_entropy",
    "binary_cross_entropy_with_logits",
    "sigmoid_focal_loss",
    "linear_cross_entropy",
    "nll_loss",
]
DEFAULT_LOSSES: tuple[LossName, ...] = (
    "cross_entropy",
    "binary_cross_entropy_with_logits",
    "sigmoid_focal_loss",
    "linear_cross_entropy",
)


_NO_TARGET = -(2**31)  # torch's binary cross-entropy ignores no target, not -100 either


class Call(NamedTuple):
    """A call of one of torch's loss functions, its arguments named as the links name them."""

    reduction: str
    arguments: dict[str, Any]


class LossFunction(NamedTuple):
    """One of torch's loss functions.

    Attributes:
        name: its name.
        bind: from its arguments, as they were given, to a :class:`Call`.
        entries: from the arguments of the call to what enters the polynomial.
        axes: from the same to the axes along which the input may be cut.
    """

    name: LossName
    bind: Callable[..., Call]
    entries: Callable[..., Entries]
    axes: Callable[..., Sequence[int]]


def check_losses(losses: object) -> tuple[LossName, ...]:
    """Validate the names of losses; None gives :data:`DEFAULT_LOSSES`.

    Raises:
        TypeError: if it is not a sequence of names.
        ValueError: if it is empty, or a name is not one that can be replaced.
    """
    if losses is None:
        return DEFAULT_LOSSES
    if isinstance(losses, str) or not isinstance(losses, list | tuple):
        raise TypeError(f"`losses` must be None or a list of names among {get_args(LossName)}, got {losses!r}")
    for name in losses:
        if name not in get_args(LossName):
            raise ValueError(f"`losses` must be among {get_args(LossName)}, got {name!r}")
        if name == "linear_cross_entropy" and not hasattr(F, name):
            raise ValueError(f"`losses` holds 'linear_cross_entropy', which torch {torch.__version__} does not have")
    if not losses:
        raise ValueError("`losses` must name at least one loss function, got an empty list")
    return tuple(losses)


# The signatures are torch's, in names, order and defaults: calls arrive as they were written.


def _bind_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Call:
    arguments = {
        "input": input,
        "target": target,
        "weight": weight,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
    }
    return Call(_reduction(size_average, reduce, reduction), arguments)


def _bind_binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Call:
    arguments = {
        "input": input,
        "target": target,
        "weight": weight,
        "pos_weight": pos_weight,
        "ignore_index": _NO_TARGET,
    }
    return Call(_reduction(size_average, reduce, reduction), arguments)


def _bind_nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Call:
    arguments = {"input": input, "target": target, "weight": weight, "ignore_index": ignore_index}
    return Call(_reduction(size_average, reduce, reduction), arguments)


def _bind_linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Call:
    arguments = {
        "input": input,
        "linear_weight": linear_weight,
        "target": target,
        "linear_bias": linear_bias,
        "weight": weight,
        "ignore_index": -100 if ignore_index is None else ignore_index,
        "label_smoothing": label_smoothing,
    }
    return Call(reduction, arguments)


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is None and reduce is None:
        return "mean" if reduction == "elementwise_mean" else reduction
    return legacy.legacy_get_string(size_average, reduce)


def _nll_entries(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Entries:
    class_dim = min(1, input.dim() - 1)
    # Not through a softmax: what comes in is taken as log-probabilities, as torch takes it.
    log_p = input.to(torch.promote_types(input.dtype, torch.float32))
    ignored = target == ignore_index
    index = target.masked_fill(ignored, 0)
    share = torch.ones_like(index, dtype=log_p.dtype) if weight is None else weight.to(log_p)[index]
    share = share.masked_fill(ignored, 0)
    log_p = log_p.gather(class_dim, index.unsqueeze(class_dim)).squeeze(class_dim).masked_fill(ignored, 0)
    return Entries(log_p, share, index, share.sum(), None, output_dtype(input))


def _linear_entries(
    input: Tensor, linear_weight: Tensor, target: Tensor, linear_bias: Tensor | None, **options: Any
) -> Entries:
    bias = None if linear_bias is None else linear_bias.flatten()
    logits = F.linear(input, linear_weight.flatten(0, -2), bias)
    return softmax_entries(logits.reshape(*input.shape[:-1], *linear_weight.shape[:-1]), target, **options)


def _no_axes(**_: object) -> Sequence[int]:
    return ()


# Losses that stay are here too: a table of what was found names these as well. torchvision's focal loss is plain Python
# around torch's binary cross-entropy: that call is what is replaced.
LOSS_FUNCTIONS: dict[Callable[..., Any], LossFunction] = {
    F.cross_entropy: LossFunction("cross_entropy", _bind_cross_entropy, softmax_entries, softmax_axes),
    F.binary_cross_entropy_with_logits: LossFunction(
        "binary_cross_entropy_with_logits", _bind_binary_cross_entropy, sigmoid_entries, sigmoid_axes
    ),
    F.nll_loss: LossFunction("nll_loss", _bind_nll_loss, _nll_entries, _no_axes),
}
if hasattr(F, "linear_cross_entropy"):
    LOSS_FUNCTIONS[F.linear_cross_entropy] = LossFunction(
        "linear_cross_entropy", _bind_linear_cross_entropy, _linear_entries, _no_axes
    )
