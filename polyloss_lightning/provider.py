"""The mixin that adds a loss to a LightningModule and saves it in checkpoints."""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from polyloss_lightning import losses
from polyloss_lightning.losses import Poly1CrossEntropyLoss, PolyLoss

CHECKPOINT_KEY = "polyloss_lightning"
CHECKPOINT_VERSION = 1


class LossProvider:
    """Mixin for a LightningModule that adds the attribute ``loss_fn`` and the method :meth:`compute_loss`.

    It has to be to the left of ``LightningModule`` in the list of base classes. The loss is passed by the caller, set
    in YAML by its ``class_path``, or is :class:`~polyloss_lightning.losses.Poly1CrossEntropyLoss` with its defaults.
    It adds nothing to the state_dict. The class name of the loss, its arguments and its current epsilon are stored in
    the checkpoint under a separate key, even if a subclass overrides ``on_save_checkpoint`` or ``on_load_checkpoint``
    without calling ``super()``. When a checkpoint is loaded,

    - a module created without a loss uses the loss of the checkpoint, if it is one of this package;
    - a module created with the same loss as in the checkpoint uses the epsilon of the checkpoint, which a schedule may
      have changed;
    - a module created with a different loss keeps it, and a warning is issued.

    Args:
        loss_fn: any module, called with the arguments of :meth:`compute_loss`, usually ``loss_fn(input, target)``; None
            uses the default.
        *args: passed on to the next class.
        **kwargs: passed on to the next class.

    Raises:
        TypeError: at class creation, if the mixin is not to the left of ``LightningModule``, or if another class
            defines an attribute of the mixin; at construction, if ``loss_fn`` is not a module.

    Example:
        >>> import torch
        >>> from lightning.pytorch import LightningModule
        >>> class Net(LossProvider, LightningModule):
        ...     def __init__(self, loss_fn: torch.nn.Module | None = None):
        ...         super().__init__(loss_fn=loss_fn)
        ...         self.layer = torch.nn.Linear(8, 3)
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         input, target = batch
        ...         return self.compute_loss(self.layer(input), target)
        >>> Net().loss_fn.epsilon
        1.0
    """

    loss_fn: nn.Module

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_bases(cls)
        for name, ours in (("on_save_checkpoint", _save_loss), ("on_load_checkpoint", _load_loss)):
            if name in vars(cls):
                setattr(cls, name, _followed_by(vars(cls)[name], ours))

    def __init__(self, *args: Any, loss_fn: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        given: object = loss_fn
        if given is not None and not isinstance(given, nn.Module):
            raise TypeError(f"`loss_fn` must be a torch.nn.Module (an instance, not a class) or None, got {given!r}")
        self._loss_given = loss_fn is not None
        self.loss_fn = Poly1CrossEntropyLoss() if loss_fn is None else loss_fn

    def compute_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return ``self.loss_fn(*args, **kwargs)``, for most losses ``self.loss_fn(input, target)``."""
        loss: Tensor = self.loss_fn(*args, **kwargs)
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the class name, the arguments and the current epsilon of the loss into the checkpoint."""
        _call_if_defined(super(), "on_save_checkpoint", checkpoint)
        _save_loss(self, checkpoint)
        self.__dict__["_hook_ran"] = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rebuild the loss, or restore its epsilon, from the checkpoint."""
        _call_if_defined(super(), "on_load_checkpoint", checkpoint)
        _load_loss(self, checkpoint)
        self.__dict__["_hook_ran"] = True


def _check_bases(cls: type) -> None:
    mro = cls.__mro__
    ours = mro.index(LossProvider)
    if nn.Module in mro and mro.index(nn.Module) < ours:
        raise TypeError(
            "LossProvider must be to the left of LightningModule, or its __init__ and hooks do not run: write "
            f"`class {cls.__name__}(LossProvider, ...)`, got ({', '.join(base.__name__ for base in cls.__bases__)})"
        )
    for position, base in enumerate(mro):
        # A subclass may override compute_loss on purpose, but one to the right of the mixin would be hidden silently.
        taken = ("loss_fn",) if position < ours else ("loss_fn", "compute_loss")
        for name in taken:
            if base is not LossProvider and name in vars(base):
                raise TypeError(
                    f"`{name}` is an attribute of LossProvider, and {base.__name__} defines it as "
                    f"{vars(base)[name]!r}: rename it, or assign a loss to `self.loss_fn` in __init__"
                )


def _followed_by(
    hook: Callable[[Any, dict[str, Any]], None], ours: Callable[[Any, dict[str, Any]], None]
) -> Callable[[Any, dict[str, Any]], None]:
    @functools.wraps(hook)
    def both(self: Any, checkpoint: dict[str, Any]) -> None:
        self.__dict__["_hook_ran"] = False
        hook(self, checkpoint)
        if not self.__dict__["_hook_ran"]:  # it did not call super()
            ours(self, checkpoint)
            self.__dict__["_hook_ran"] = True

    return both


def _call_if_defined(parent: Any, name: str, checkpoint: dict[str, Any]) -> None:
    hook = getattr(parent, name, None)
    if hook is not None:
        hook(checkpoint)


def _save_loss(self: LossProvider, checkpoint: dict[str, Any]) -> None:
    checkpoint[CHECKPOINT_KEY] = {"version": CHECKPOINT_VERSION, "loss_fn": _describe(self.loss_fn)}


def _load_loss(self: LossProvider, checkpoint: Mapping[str, Any]) -> None:
    state = checkpoint.get(CHECKPOINT_KEY)
    if state is None:
        return
    if state["version"] > CHECKPOINT_VERSION:
        warnings.warn(
            f"The checkpoint's loss was saved in format {state['version']}, but this version of polyloss_lightning "
            f"supports formats up to {CHECKPOINT_VERSION}: the loss was not restored",
            stacklevel=2,
        )
        return
    saved, present = state["loss_fn"], _describe(self.loss_fn)
    if _same(saved, present):
        if "epsilon" in saved:
            self.loss_fn.epsilon = saved["epsilon"]
        return
    is_default = not self._loss_given and _same(present, _describe(Poly1CrossEntropyLoss()))
    if is_default and saved["class"] in _own_losses():
        loss = _own_losses()[saved["class"]](**saved["arguments"])
        loss.epsilon = saved["epsilon"]
        module: Any = self
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        self.loss_fn = loss.to(device)
        self.loss_fn.train(module.training)
        return
    kept = "cannot be rebuilt from the checkpoint" if is_default else "differs from the loss given to this module"
    warnings.warn(
        f"The checkpoint was trained with {_spell(saved)}, which {kept}: {_spell(present)} stays in use. "
        "Pass `loss_fn=` to use another loss.",
        stacklevel=2,
    )


def _own_losses() -> dict[str, type[PolyLoss]]:
    """Return the only classes that a checkpoint may build: a name in a file must never import other code."""
    classes = {name: getattr(losses, name) for name in losses.__all__}
    return {name: cls for name, cls in classes.items() if cls is not PolyLoss}


def _describe(loss: nn.Module) -> dict[str, Any]:
    """Describe the loss by primitives and tensors, so that the checkpoint loads with ``weights_only=True``."""
    cls = type(loss)
    if isinstance(loss, PolyLoss):
        epsilon = loss.epsilon if isinstance(loss.epsilon, float) else list(loss.epsilon)
        if _own_losses().get(cls.__name__) is cls:
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


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two descriptions are of the same loss, not counting the current epsilon."""
    if one["class"] != other["class"]:
        return False
    defaults = _defaults(one["class"])
    mine, yours = ({**defaults, **description.get("arguments", {})} for description in (one, other))
    return mine.keys() == yours.keys() and all(_equal(value, yours[name]) for name, value in mine.items())


def _defaults(name: str) -> dict[str, Any]:
    """Return the default arguments of the loss, for arguments that are missing in checkpoints of older versions."""
    cls = _own_losses().get(name)
    parameters = {} if cls is None else inspect.signature(cls).parameters
    return {name: _primitive(parameter.default) for name, parameter in parameters.items()}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        # A module trained with precision bf16-true has saved rounded class weights.
        dtype = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
        return torch.equal(one.to("cpu", dtype), other.to("cpu", dtype))
    return type(one) is type(other) and not isinstance(one, Tensor) and bool(one == other)


def _spell(description: Mapping[str, Any]) -> str:
    arguments = description.get("arguments")
    if arguments is None:
        return str(description["class"])
    return f"{description['class']}({', '.join(f'{name}={value}' for name, value in arguments.items())})"
