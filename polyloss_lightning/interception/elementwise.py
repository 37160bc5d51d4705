"""Replacing elementwise losses, with a check that no focal loss then uses them as -log Pt."""

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
    """A :class:`LossMode` that replaces losses of reduction ``"none"``, and raises if ``exp`` is applied to one.

    Many focal losses compute Pt as ``pt = exp(-ce)``. This is correct only for plain cross-entropy with class indices
    and without weights. Every tensor computed from a replaced elementwise loss is therefore tracked until it has been
    reduced to a scalar.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tracked: dict[int, weakref.ref[Tensor]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace losses, and track the tensors computed from them."""
        result = super().__torch_function__(func, types, args, kwargs)
        if self._tracked and not torch.compiler.is_compiling():
            self._track_result(func, args, kwargs or {}, result)
        return result

    def loss(self, call: Call, on_entries: Callable[[Entries], None] | None = None) -> Tensor:
        """Return the replaced loss, and start tracking it if it is elementwise."""
        loss = super().loss(call, on_entries)
        if call.reduction == "none" and not torch.compiler.is_compiling():
            self._add(loss)
        return loss

    def _add(self, tensor: Tensor) -> None:
        key, tracked = id(tensor), self._tracked
        tracked[key] = weakref.ref(tensor, lambda _: tracked.pop(key, None))

    def _is_tracked(self, value: object) -> bool:
        tracked = self._tracked.get(id(value))
        return tracked is not None and tracked() is value

    def _track_result(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        name = getattr(func, "__name__", "")
        tracked = [value for value in _flat((*args, *kwargs.values())) if self._is_tracked(value)]
        if not tracked:
            return
        exponents = (*args[1:], *kwargs.values()) if name in _POWERS else (*args, *kwargs.values())
        if name in _EXPONENTIALS | _POWERS and any(map(self._is_tracked, exponents)):
            raise LossOverrideError(
                f"{call_sites.location(call_sites.caller())} calls {name} on a tensor computed from a loss of "
                "reduction 'none'. If this is pt = exp(-ce), it is correct only for plain cross-entropy, and the "
                "result would be wrong here: exclude this loss with `losses`, `scope` or elementwise='skip', or use "
                "Poly1FocalLoss instead of the focal loss"
            )
        # A scalar is a mean or a sum, unless it is a single entry, or was computed from a single entry.
        picked = name in _PICKS or not any(tensor.dim() for tensor in tracked)
        for tensor in _flat((result,)):
            if isinstance(tensor, Tensor) and (picked or tensor.dim()):
                self._add(tensor)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_tracked": {}}


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


skip_as_frame(ElementwiseLossMode.__torch_function__)
