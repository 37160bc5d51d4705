"""Finding the losses of a run: those in the module, and those that an override puts in the place of torch's."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

import lightning.pytorch as pl

from polyloss_lightning.callbacks.loss_override import PolyLossOverride
from polyloss_lightning.callbacks.trainer.log_names import path_in_names
from polyloss_lightning.interception import ReplacedLoss
from polyloss_lightning.interception.scope import without_wrappers
from polyloss_lightning.losses import PolyLoss

Loss: TypeAlias = PolyLoss | PolyLossOverride
Observable: TypeAlias = PolyLoss | ReplacedLoss  # has an epsilon and can be observed
_C = TypeVar("_C", bound=pl.Callback)
_L = TypeVar("_L")


def find_losses(trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Loss]:
    """Return everything that has an epsilon: the losses in the module by path, and the overrides by name.

    A loss has a path for each place in the module where it is found. Paths are those in the user's code, even under
    ``torch.compile``. The name of an override without one is ``""``.
    """
    found: dict[str, Loss] = {
        without_wrappers(path): module
        for path, module in pl_module.named_modules(remove_duplicate=False)
        if isinstance(module, PolyLoss)
    }
    for override in find_callbacks(trainer, PolyLossOverride):
        name = override.name or ""
        taken = sorted(found.keys() & {name, *override.observables()})
        if taken:
            raise ValueError(f"{taken} is the path of a loss in the module: give the PolyLossOverride another `name`")
        found[name] = override
    if not found:
        raise ValueError(
            f"{type(pl_module).__name__} has no loss of polyloss_lightning: add one as a submodule "
            "(self.loss_fn = Poly1CrossEntropyLoss()), or replace its losses with the callback PolyLossOverride"
        )
    return found


def choose(found: Mapping[str, _L], paths: Sequence[str] | None, argument: str) -> dict[str, _L]:
    """Return each loss at one of ``paths`` once, by its first path in ``found``; None chooses all.

    An unknown path is a ``ValueError`` that names the ``argument``.
    """
    missing = [path for path in paths or () if not path or path not in found]
    if missing:
        raise ValueError(
            f"`{argument}` must be among {sorted(filter(None, found))}, the losses in the module and the named "
            f"overrides, got {missing}"
        )
    first = {id(loss): path for path, loss in reversed(list(found.items()))}
    return {first[id(found[path])]: found[path] for path in (found if paths is None else paths)}


def choose_for(
    callback: pl.Callback, kind: type[pl.Callback], trainer: pl.Trainer, found: Mapping[str, _L], argument: str
) -> dict[str, _L]:
    """Return the losses chosen by the ``argument`` of ``callback``, which no other callback of this kind may choose.

    Two paths that have the same name in a log are a ``ValueError`` too: Lightning would log the mean of both values.
    """
    mine = choose(found, getattr(callback, argument), argument)
    every = list(mine)
    for other in find_callbacks(trainer, kind):
        theirs = {} if other is callback else choose(found, getattr(other, argument), argument)
        shared = sorted(mine.keys() & theirs)
        if shared:
            raise ValueError(f"two {kind.__name__}s have the same losses: {shared}; set `{argument}` on each of them")
        every += theirs
    path_of: dict[str, str] = {}
    for path in every:
        first = path_of.setdefault(path_in_names(path), path)
        if first != path:
            raise ValueError(
                f"the losses at {first!r} and {path!r} would both be logged as {path_in_names(path)!r}: rename one of "
                "them (only letters, digits and _ . / - are kept in names)"
            )
    return mine


def observables(losses: Mapping[str, Loss]) -> dict[str, Observable]:
    """Return the losses in the module by path, and the functions that are replaced by an override by name."""
    every: dict[str, Observable] = {}
    for name, loss in losses.items():
        every |= loss.observables() if isinstance(loss, PolyLossOverride) else {name: loss}
    return every


def find_callbacks(trainer: pl.Trainer, kind: type[_C]) -> list[_C]:
    """Return the callbacks of ``trainer`` that are instances of ``kind``, in order."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kind)]
