"""The description of a loss in a checkpoint, which consists of primitives and tensors."""

import inspect
import reprlib
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from polyloss_lightning import losses
from polyloss_lightning.losses import PolyLoss

CHECKPOINT_KEY = "polyloss_lightning"
CHECKPOINT_VERSION = 1
_PRIMITIVES = (type(None), bool, int, float, str, Tensor)


def own_losses() -> dict[str, type[PolyLoss]]:
    """Return the only classes that a checkpoint may build: a name in a file must never import other code."""
    classes = {name: getattr(losses, name) for name in losses.__all__}
    return {name: cls for name, cls in classes.items() if cls is not PolyLoss}


def describe(loss: nn.Module) -> dict[str, Any]:
    """Describe the loss by primitives and tensors, so that the checkpoint loads with ``weights_only=True``."""
    cls = type(loss)
    if isinstance(loss, PolyLoss):
        epsilon = loss.epsilon if isinstance(loss.epsilon, float) else list(loss.epsilon)
        if own_losses().get(cls.__name__) is cls:
            arguments = {name: _primitive(value) for name, value in loss.arguments().items()}
            return {"class": cls.__name__, "arguments": arguments, "epsilon": epsilon}
        return {"class": f"{cls.__module__}.{cls.__qualname__}", "epsilon": epsilon}
    return {"class": f"{cls.__module__}.{cls.__qualname__}"}


def _primitive(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else [_primitive(entry) for entry in value]


def check(saved: object) -> dict[str, Any]:
    """Check that ``saved`` describes a loss, completely if it is one of this package, and return it.

    Raises:
        TypeError: if something in it has the wrong type.
        ValueError: if something is missing.
    """
    description = _entries(saved, "loss_fn")
    name = description.get("class")
    if not isinstance(name, str) or not name:
        raise TypeError(f"`class` must be the name of a class, got {reprlib.repr(name)}")
    if name in own_losses():
        missing = [key for key in ("arguments", "epsilon") if key not in description]
        if missing:
            raise ValueError(f"{name} has no {' and no '.join(missing)}")
        for argument, value in _entries(description["arguments"], "arguments").items():
            _check_value(argument, value)
    _check_value("epsilon", description.get("epsilon"))
    return description


def _entries(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"`{name}` must be a dict with strings as keys, got {reprlib.repr(value)}")
    return value


def _check_value(name: str, value: object) -> None:
    if isinstance(value, list):
        for entry in value:
            _check_value(name, entry)
    elif not isinstance(value, _PRIMITIVES) or (isinstance(value, Tensor) and value.is_complex()):
        raise TypeError(f"`{name}` must consist of real numbers, strings, tensors and lists, got {reprlib.repr(value)}")


def build(saved: Mapping[str, Any]) -> PolyLoss:
    """Build a loss of this package from its description, with its current epsilon."""
    loss = own_losses()[saved["class"]](**saved["arguments"])
    loss.epsilon = saved["epsilon"]
    return loss


def unknown_arguments(saved: Mapping[str, Any]) -> list[str]:
    """Return the arguments that a later version of this package has added to the loss."""
    cls = own_losses().get(saved["class"])
    return [] if cls is None else sorted(saved["arguments"].keys() - inspect.signature(cls).parameters.keys())


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two descriptions are of the same loss, not counting the current epsilon."""
    if one["class"] != other["class"]:
        return False
    defaults = _defaults(one["class"])
    mine, yours = ({**defaults, **description.get("arguments", {})} for description in (one, other))
    return mine.keys() == yours.keys() and all(_equal(value, yours[name]) for name, value in mine.items())


def _defaults(name: str) -> dict[str, Any]:
    """Return the default arguments of the loss, for arguments that are missing in checkpoints of older versions."""
    cls = own_losses().get(name)
    parameters = {} if cls is None else inspect.signature(cls).parameters
    return {name: _primitive(parameter.default) for name, parameter in parameters.items()}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        # A module trained with precision bf16-true has saved rounded class weights.
        dtype = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
        return torch.equal(one.to("cpu", dtype), other.to("cpu", dtype))
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(one == other)


def spell(description: Mapping[str, Any]) -> str:
    """Return the description as a call that builds the loss, with long values cut."""
    arguments = description.get("arguments")
    if arguments is None:
        return str(description["class"])
    given = ", ".join(f"{name}={_short(value)}" for name, value in arguments.items())
    return f"{description['class']}({given})"


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return f"<tensor of shape {tuple(value.shape)}>" if value.numel() > 10 else str(value)
    return reprlib.repr(value)
