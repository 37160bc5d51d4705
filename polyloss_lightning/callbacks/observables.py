"""Where the losses are that a callback may observe."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import lightning.pytorch as pl

from polyloss_lightning.core import Observable
from polyloss_lightning.interception.scope import without_wrappers
from polyloss_lightning.losses import PolyLoss

_C = TypeVar("_C", bound=pl.Callback)


def find_observables(
    trainer: pl.Trainer, pl_module: pl.LightningModule, losses: Sequence[str] | None = None
) -> dict[str, Observable]:
    """The losses in ``pl_module``, and those that callbacks put in the place of others, by path.

    Args:
        trainer: its callbacks are asked for their ``observables()``, if they have such a method.
        pl_module: every :class:`~polyloss_lightning.losses.PolyLoss` in it is taken; a path is as the user wrote it,
            also under ``torch.compile``.
        losses: take these paths only; None takes all.

    Raises:
        ValueError: if there is none, or not the one that was asked for.
    """
    found: dict[str, Observable] = {
        without_wrappers(path): module for path, module in pl_module.named_modules() if isinstance(module, PolyLoss)
    }
    for callback in find_callbacks(trainer, pl.Callback):
        if callable(observables := getattr(callback, "observables", None)):
            found |= observables()
    if not found:
        raise ValueError(
            f"{type(pl_module).__name__} has no loss to observe: give it one of polyloss_lightning.losses as a "
            "submodule (self.loss_fn = Poly1CrossEntropyLoss()), or add a callback that replaces its losses"
        )
    missing = [path for path in losses or () if path not in found]
    if missing:
        raise ValueError(f"`losses` must be among the paths {sorted(found)} of the losses, got {missing}")
    return {path: loss for path, loss in found.items() if losses is None or path in losses}


def check_unshared(
    found: dict[str, Observable],
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    others: Iterable[Sequence[str] | None],
) -> None:
    """Raise ``ValueError`` if another monitor, by the ``losses`` that it was given, takes one of ``found`` too."""
    for losses in others:
        shared = sorted(found.keys() & find_observables(trainer, pl_module, losses).keys())
        if shared:
            raise ValueError(f"two PolynomialTermMonitors monitor the same losses: {shared}; set `losses` of each")


def find_callbacks(trainer: pl.Trainer, kind: type[_C]) -> list[_C]:
    """The callbacks of ``trainer`` that are a ``kind``, in its order."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kind)]
