"""The loss functions of torch that can be replaced, and the conversion of their arguments to links."""

import contextlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from polyloss_lightning._checks import check_choice
from polyloss_lightning.core import Entries, Link, Polynomial, Reduction, Sigmoid, Softmax
from polyloss_lightning.core.entries import autocast_dtype
from polyloss_lightning.core.linear_softmax import linear_loss
from polyloss_lightning.core.loss import OnEntries, loss

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


NO_TARGET = -(2**31)  # torch's binary cross-entropy ignores no target, not even -100


class Call(NamedTuple):
    """A call of one of torch's loss functions.

    Attributes:
        input: logits; log-probabilities for ``nll_loss``, features for ``linear_cross_entropy``.
        target: the targets.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        link: the other arguments of the call, as a link.
        linear: weight and bias of ``linear_cross_entropy``; None for all other functions.
    """

    input: Tensor
    target: Tensor
    reduction: str
    link: Link
    linear: tuple[Tensor, Tensor | None] | None = None

    def loss(self, polynomial: Polynomial, on_entries: OnEntries = None) -> Tensor:
        """Return the loss of ``polynomial`` that replaces this call."""
        reduction = cast(Reduction, self.reduction)
        if self.linear is None:
            return loss(self.link, self.input, self.target, polynomial, reduction, on_entries)
        weight, bias = self.linear
        link = cast(Softmax, self.link)
        return linear_loss(link, self.input, weight, self.target, bias, polynomial, reduction, on_entries)


class LossFunction(NamedTuple):
    """One of torch's loss functions.

    Attributes:
        name: name of the function.
        bind: converts the arguments of a call, exactly as they were passed, to a :class:`Call`.
    """

    name: LossName
    bind: Callable[..., Call]


class LogProbability(NamedTuple):
    """The link of ``nll_loss``. As in torch, the input is used as log-probabilities, and no softmax is applied."""

    weight: Tensor | None
    ignore_index: int

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """Return one entry per sample."""
        dim = min(1, input.dim() - 1)
        log_p = input.to(torch.promote_types(input.dtype, torch.float32))
        ignored = target == self.ignore_index
        index = target.masked_fill(ignored, 0)
        weight = torch.ones_like(index, dtype=log_p.dtype) if self.weight is None else self.weight.to(log_p)[index]
        weight = weight.masked_fill(ignored, 0)
        log_p = log_p.gather(dim, index.unsqueeze(dim)).squeeze(dim).masked_fill(ignored, 0)
        return Entries(log_p, weight, index, weight.sum(), None, autocast_dtype(input, input.dtype))


def check_losses(losses: object) -> tuple[LossName, ...]:
    """Return the validated names of losses as a tuple; for None return :data:`DEFAULT_LOSSES`.

    Raises:
        TypeError: if ``losses`` is not a list or tuple.
        ValueError: if it is empty, or if a name is not that of a loss function that can be replaced.
    """
    if losses is None:
        return DEFAULT_LOSSES
    if isinstance(losses, str) or not isinstance(losses, list | tuple):
        raise TypeError(f"`losses` must be None or a list of names among {get_args(LossName)}, got {losses!r}")
    for i, name in enumerate(losses):
        check_choice(f"losses[{i}]", name, get_args(LossName))
        if name == "linear_cross_entropy" and not hasattr(F, name):
            raise ValueError(f"`losses` contains 'linear_cross_entropy', which torch {torch.__version__} does not have")
    if not losses:
        raise ValueError("`losses` must contain at least one loss function, got an empty list")
    return tuple(losses)


_accepted: set[Any] = set()


def refuse_bad_options(
    func: Callable[..., Any], function: LossFunction, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Let torch refuse the options that it refuses: the first call with them is made on one sample by torch itself."""
    options = (func, *map(_option, args), *((name, _option(value)) for name, value in kwargs.items()))
    with contextlib.suppress(TypeError):  # unhashable
        if options in _accepted:
            return
    try:
        arguments = inspect.signature(function.bind).bind(*args, **kwargs).arguments
    except TypeError:
        func(*args, **kwargs)
        raise
    sample = {"input": torch.zeros(1, 1, device="cpu"), "linear_weight": torch.zeros(1, 1, device="cpu")}
    target = arguments["target"]
    if isinstance(target, Tensor):
        is_index = not target.is_floating_point() and function.name != "binary_cross_entropy_with_logits"
        sample["target"] = torch.zeros(1, dtype=torch.long, device="cpu") if is_index else sample["input"]
    tensors = {name: sample.get(name) for name, value in arguments.items() if isinstance(value, Tensor)}
    # Not for an override around this one, which would take the call for one of the module.
    with getattr(torch._C, "DisableTorchFunction", contextlib.nullcontext)(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        func(**{**arguments, **tensors})
    if len(_accepted) > 1000:  # an option that moves
        _accepted.clear()
    with contextlib.suppress(TypeError):
        _accepted.add(options)


def _option(value: object) -> object:
    return (Tensor, value.is_floating_point()) if isinstance(value, Tensor) else (type(value), value)


# These signatures match torch's in names, order and defaults, because calls arrive exactly as they were written.


def _cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Call:
    link = Softmax(weight, ignore_index, max(label_smoothing, 0.0))  # torch takes a negative one for 0
    return Call(input, target, _reduction(size_average, reduce, reduction), link)


def _binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Call:
    link = Sigmoid(weight, pos_weight, NO_TARGET)
    return Call(input, target, _reduction(size_average, reduce, reduction), link)


def _nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Call:
    return Call(input, target, _reduction(size_average, reduce, reduction), LogProbability(weight, ignore_index))


def _linear_cross_entropy(
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
    link = Softmax(weight, -100 if ignore_index is None else ignore_index, label_smoothing)
    return Call(input, target, reduction, link, (linear_weight, linear_bias))


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is None and reduce is None:
        return "mean" if reduction == "elementwise_mean" else reduction
    of_old = "sum" if size_average is not None and not size_average else "mean"
    meant = "none" if reduce is not None and not reduce else of_old
    warnings.warn(f"size_average and reduce are deprecated: use reduction={meant!r}", stacklevel=2)
    return meant


# Includes losses that are not selected for replacement, because the table of call sites lists them as well.
# torchvision's focal loss is Python code that calls torch's binary cross-entropy, and that inner call is replaced.
LOSS_FUNCTIONS: dict[Callable[..., Any], LossFunction] = {
    F.cross_entropy: LossFunction("cross_entropy", _cross_entropy),
    F.binary_cross_entropy_with_logits: LossFunction(
        "binary_cross_entropy_with_logits", _binary_cross_entropy_with_logits
    ),
    F.nll_loss: LossFunction("nll_loss", _nll_loss),
}
if hasattr(F, "linear_cross_entropy"):
    LOSS_FUNCTIONS[F.linear_cross_entropy] = LossFunction("linear_cross_entropy", _linear_cross_entropy)
