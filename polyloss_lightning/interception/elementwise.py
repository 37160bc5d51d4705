"""Elementwise losses that were replaced, followed until it is clear that no focal loss takes them for -log Pt."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from polyloss_lightning.core import Entries
from polyloss_lightning.interception import call_sites
from polyloss_lightning.interception.functions import Call
from polyloss_lightning.interception.mode import LossMode, LossOverrideError, skip_as_frame

_EXPONENTIALS = frozenset({"exp", "exp_", "expm1", "expm1_", "exp2", "exp2_", "__rpow__"})
_POWERS = frozenset({"pow", "pow_", "float_power", "__pow__"})
_PICKS = frozenset({"unbind", "__getitem__", "select", "take", "split", "squeeze"})


class ElementwiseLossMode(LossMode):
    """A :class:`LossMode` that replaces losses of reduction ``"none"``, and raises where one goes into an ``exp``.

    ``pt = exp(-ce)`` is how many focal losses find Pt. It holds for the cross-entropy of one class without weights,
    and for no other loss. Everything computed from an elementwise loss is followed, until it is a scalar.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._followed: dict[int, weakref.ref[Tensor]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace losses, and follow what becomes of them."""
        result = super().__torch_function__(func, types, args, kwargs)
        if self._followed and not torch.compiler.is_compiling():
            self._follow(func, args, kwargs or {}, result)
        return result

    def loss(self, call: Call, on_entries: Callable[[Entries], None] | None = None) -> Tensor:
        """Return the replaced loss, and follow it from here on if it is elementwise."""
        loss = super().loss(call, on_entries)
        if call.reduction == "none" and not torch.compiler.is_compiling():
            self._add(loss)
        return loss

    def _add(self, tensor: Tensor) -> None:
        key, followed = id(tensor), self._followed
        followed[key] = weakref.ref(tensor, lambda _: followed.pop(key, None))

    def _is_followed(self, value: object) -> bool:
        followed = self._followed.get(id(value))
        return followed is not None and followed() is value

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        name = getattr(func, "__name__", "")
        followed = [value for value in _flat((*args, *kwargs.values())) if self._is_followed(value)]
        if not followed:
            return
        exponents = (*args[1:], *kwargs.values()) if name in _POWERS else (*args, *kwargs.values())
        if name in _EXPONENTIALS | _POWERS and any(map(self._is_followed, exponents)):
            raise LossOverrideError(
                f"{call_sites.location(call_sites.caller())} calls {name} on what was computed from a loss of "
                "reduction 'none'. If this is pt = exp(-ce), then it holds for no loss but the cross-entropy, and the "
                "result would be wrong: leave this loss out by `losses`, `scope` or elementwise='skip', or use "
                "Poly1FocalLoss in the place of the focal loss"
            )
        # A scalar is a mean or a sum, unless it was picked out, or made of one that was.
        picked = name in _PICKS or not any(tensor.dim() for tensor in followed)
        for tensor in _flat((result,)):
            if isinstance(tensor, Tensor) and (picked or tensor.dim()):
                self._add(tensor)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_followed": {}}


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


skip_as_frame(ElementwiseLossMode.__torch_function__)
