"""The loss functions of torch that can be replaced, and the conversion of their arguments to links."""

import contextlib
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from polyloss_lightning._checks import check_choices
from polyloss_lightning.core import Entries, Link, Polynomial, Reduction, Sigmoid, Softmax
from polyloss_lightning.core.linear_softmax import linear_loss
from polyloss_lightning.core.loss import OnEntries, loss

LossName: TypeAlias = Literal[
    "cross_entropy", "binary_cross_entropy_with_logits", "sigmoid_focal_loss", "linear_cross_entropy", "nll_loss"
]
DEFAULT_LOSSES: tuple[LossName, ...] = get_args(LossName)[:-1]  # not nll_loss: its input is often not a log-probability
NO_TARGET = -(2**31)  # torch's binary cross-entropy ignores no target, not even -100


class Call(NamedTuple):
    """A call of one of torch's loss functions."""

    name: LossName
    input: Tensor  # logits; log-probabilities for nll_loss, features for linear_cross_entropy
    target: Tensor
    reduction: Reduction
    link: Link  # the other arguments of the call
    linear: tuple[Tensor, Tensor | None] | None = None  # weight and bias of linear_cross_entropy

    def loss(self, polynomial: Polynomial, on_entries: OnEntries = None) -> Tensor:
        """Return the loss of ``polynomial`` that replaces this call."""
        if self.linear is None:
            return loss(self.link, self.input, self.target, polynomial, self.reduction, on_entries)
        weight, bias = self.linear
        link = cast(Softmax, self.link)
        return linear_loss(link, self.input, weight, self.target, bias, polynomial, self.reduction, on_entries)


class LogProbability(NamedTuple):
    """The link of ``nll_loss``. As in torch, the input is used as log-probabilities, and no softmax is applied."""

    weight: Tensor | None
    ignore_index: int

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """Return one entry per sample."""
        dim = min(1, input.dim() - 1)
        options = Softmax(self.weight, self.ignore_index)
        compute_dtype, dtype = options.check(input, target)
        index, ignored, weight = options.samples(target, dim, compute_dtype)
        log_p = input.to(compute_dtype).gather(dim, index).masked_fill(ignored, 0)
        return Entries(log_p, weight, index, weight.sum(), dim, dtype)


def check_losses(losses: object) -> tuple[LossName, ...]:
    """Return the validated names of losses as a tuple; for None return :data:`DEFAULT_LOSSES`."""
    if losses is None:
        return DEFAULT_LOSSES
    names = check_choices("losses", losses, get_args(LossName))
    if not names:
        raise ValueError("`losses` must contain at least one loss function, got an empty list")
    if "linear_cross_entropy" in names and not hasattr(F, "linear_cross_entropy"):
        raise ValueError(f"`losses` contains 'linear_cross_entropy', which torch {torch.__version__} does not have")
    return names


def bind(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Return the call of one of :data:`LOSS_FUNCTIONS`. Options that torch refuses are refused by torch itself.

    The arguments fit the signature of ``func``, because a mode is called from inside of the function.
    """
    defaults = LOSS_FUNCTIONS[func]
    options = {**defaults, **dict(zip(defaults, args, strict=False)), **kwargs}
    _refuse_bad_options(func, options)
    input, target, reduction = (options.pop(name) for name in ("input", "target", "reduction"))
    old = options.pop("size_average", None), options.pop("reduce", None)
    if old != (None, None):  # every loss of torch reads these arguments, and warns that they are deprecated
        reduction = torch.nn.L1Loss(*old).reduction
    reduction = "mean" if reduction == "elementwise_mean" else reduction
    linear = (options.pop("linear_weight"), options.pop("linear_bias")) if "linear_weight" in options else None
    name = cast(LossName, func.__name__)
    return Call(name, input, target, cast(Reduction, reduction), _LINKS[name](**options), linear)


_accepted: set[Any] = set()


def _refuse_bad_options(func: Callable[..., Any], options: dict[str, Any]) -> None:
    """Call ``func`` itself on one sample the first time that it is called with these options."""
    target = options["target"]
    is_index = isinstance(target, Tensor) and not target.is_floating_point()
    # Not the values themselves, which may be unhashable, and may be equal to one of another type.
    shown = ["Tensor" if isinstance(value, Tensor) else repr(value) for value in options.values()]
    key = (func, is_index, *shown)  # always in the order of the signature
    if key in _accepted:
        return
    sample = {"input": torch.zeros(1, 1, device="cpu"), "linear_weight": torch.zeros(1, 1, device="cpu")}
    if isinstance(target, Tensor):
        is_class = is_index and func is not F.binary_cross_entropy_with_logits
        sample["target"] = torch.zeros(1, dtype=torch.long, device="cpu") if is_class else sample["input"]
    tensors = {name: sample.get(name) for name, value in options.items() if isinstance(value, Tensor)}
    # Not for an override around this one, which would take the call for one of the module.
    with getattr(torch._C, "DisableTorchFunction", contextlib.nullcontext)(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        func(**{**options, **tensors})
    if len(_accepted) > 1000:  # an option that moves
        _accepted.clear()
    _accepted.add(key)


def _softmax(weight: Tensor | None, ignore_index: int | None, label_smoothing: float, options: Any = None) -> Softmax:
    """Return the link of two functions; the ``options`` of ``linear_cross_entropy`` affect only torch's own memory."""
    # torch treats a negative label smoothing as 0.
    return Softmax(weight, -100 if ignore_index is None else ignore_index, max(label_smoothing, 0.0))


# Which link takes the options of a function. The functions include losses that are not selected for replacement,
# because the table of call sites lists them as well. torchvision's focal loss is Python code that calls torch's binary
# cross-entropy, and that inner call is replaced.
_LINKS: dict[LossName, Callable[..., Link]] = {
    "cross_entropy": _softmax,
    "binary_cross_entropy_with_logits": partial(Sigmoid, ignore_index=NO_TARGET),
    "nll_loss": LogProbability,
    "linear_cross_entropy": _softmax,  # new in torch 2.14
}
# The default of each parameter of each function, in the order of the signature.
LOSS_FUNCTIONS: dict[Callable[..., Any], dict[str, Any]] = {
    func: {name: parameter.default for name, parameter in inspect.signature(func).parameters.items()}
    for func in (getattr(F, name) for name in _LINKS if hasattr(F, name))
}
