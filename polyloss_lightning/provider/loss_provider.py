"""The mixin that adds a loss to a LightningModule and saves it in checkpoints."""

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyloss_lightning._checks import check_integer
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.provider.saved_loss import (
    CHECKPOINT_KEY,
    CHECKPOINT_VERSION,
    build,
    check,
    describe,
    own_losses,
    same,
    spell,
    unknown_arguments,
)


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
    - a module created with a different loss keeps it, and a warning is issued, except to predict.

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
            # The hook may be that of a class to the left of the mixin, which does not derive from it.
            hook = getattr(cls, name)
            if hook is not vars(LossProvider)[name] and not hasattr(hook, "_followed_by"):
                setattr(cls, name, _followed_by(hook, ours))

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

    def to_torchscript(
        self, file_path: Any = None, method: str | None = "script", example_inputs: Any = None, **kwargs: Any
    ) -> Any:
        """Compile the module without its loss, which TorchScript cannot compile; arguments as in ``LightningModule``.

        Raises:
            RuntimeError: with ``method="script"``, if ``forward`` calls the loss.
        """
        module: Any = self
        modules = dict(module._modules)
        if method == "script":
            module._modules.pop("loss_fn", None)
        parent: Any = super()
        try:
            return parent.to_torchscript(file_path, method, example_inputs, **kwargs)
        except Exception as error:  # torch raises errors of several types
            if not re.search(r"\b(loss_fn|compute_loss)\b", str(error)):
                raise
            raise RuntimeError(
                f"TorchScript cannot compile the loss that {type(self).__name__}.forward calls: return the logits from "
                "forward, and call the loss in the steps"
            ) from error
        finally:
            module._modules.update(modules)
            for name in modules:  # restores the order
                module._modules[name] = module._modules.pop(name)

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

    both.__dict__["_followed_by"] = ours
    return both


def _call_if_defined(parent: Any, name: str, checkpoint: dict[str, Any]) -> None:
    hook = getattr(parent, name, None)
    if hook is not None:
        hook(checkpoint)


def _save_loss(self: LossProvider, checkpoint: dict[str, Any]) -> None:
    checkpoint[CHECKPOINT_KEY] = {"version": CHECKPOINT_VERSION, "loss_fn": describe(self.loss_fn)}
    key = getattr(self, "CHECKPOINT_HYPER_PARAMS_KEY", "hyper_parameters")
    if isinstance(hyper_parameters := checkpoint.get(key), dict):
        # A pickled loss could not be loaded with weights_only=True, and is saved above.
        optional = [n for n, p in inspect.signature(type(self)).parameters.items() if p.default is not p.empty]
        own = tuple(own_losses().values())
        checkpoint[key] = {
            name: value
            for name, value in hyper_parameters.items()
            if not (name in optional and type(value) in own and (name == "loss_fn" or value is self.loss_fn))
        }


def _load_loss(self: LossProvider, checkpoint: Mapping[str, Any]) -> None:
    if CHECKPOINT_KEY not in checkpoint:
        return
    try:
        loss, note = _restored(self, checkpoint[CHECKPOINT_KEY])
    except Warning:  # raised by -W error
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise ValueError(
            f"The entry {CHECKPOINT_KEY!r} of the checkpoint is damaged ({reason}). Without this entry the rest of the "
            "checkpoint can be loaded, and the loss stays as it is."
        ) from error
    if loss is not self.loss_fn:
        module: Any = self
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        self.loss_fn = loss.to(device)
        self.loss_fn.train(module.training)
    predicting = getattr(getattr(self, "_trainer", None), "predicting", False)
    if note and not predicting:  # predictions do not depend on the loss
        warnings.warn(note, stacklevel=3)


def _restored(self: LossProvider, state: Any) -> tuple[nn.Module, str]:
    """Return the loss of the module after loading ``state``, and what to warn of."""
    if not isinstance(state, dict):
        raise TypeError(f"expected a dict, got {type(state).__name__}")
    check_integer("version", state["version"], at_least=1)
    if state["version"] > CHECKPOINT_VERSION:
        return self.loss_fn, (
            f"The checkpoint's loss was saved in format {state['version']}, but this version of polyloss_lightning "
            f"supports formats up to {CHECKPOINT_VERSION}: the loss was not restored"
        )
    saved, present = check(state["loss_fn"]), describe(self.loss_fn)
    if same(saved, present):
        if "epsilon" in saved:
            self.loss_fn.epsilon = saved["epsilon"]
        return self.loss_fn, ""
    is_default = not self._loss_given and same(present, describe(Poly1CrossEntropyLoss()))
    reason = "differs from the loss given to this module"
    if is_default:
        unknown = unknown_arguments(saved)
        if saved["class"] in own_losses() and not unknown:
            return build(saved), ""
        later = f"has arguments of a later version of polyloss_lightning ({', '.join(unknown)})"
        reason = later if unknown else "cannot be rebuilt from the checkpoint"
    note = f"The checkpoint was trained with {spell(saved)}, which {reason}: {spell(present)} stays in use."
    return self.loss_fn, f"{note} Pass `loss_fn=` to use another loss."
