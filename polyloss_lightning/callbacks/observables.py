"""Finding the losses that a callback can observe."""

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
    """Return the losses in ``pl_module`` and the losses replaced by callbacks, by path.

    Args:
        trainer: the ``observables()`` of its callbacks are included, for callbacks that have this method.
        pl_module: every :class:`~polyloss_lightning.losses.PolyLoss` in it is included. Its path is the one in the
            user's code, even under ``torch.compile``.
        losses: return only these paths; None returns all.

    Raises:
        ValueError: if there is no loss at all, or if one of ``losses`` does not exist.
    """
    found: dict[str, Observable] = {
        without_wrappers(path): module for path, module in pl_module.named_modules() if isinstance(module, PolyLoss)
    }
    for callback in find_callbacks(trainer, pl.Callback):
        if callable(observables := getattr(callback, "observables", None)):
            found |= observables()
    if not found:
        raise ValueError(
            f"{type(pl_module).__name__} has no loss to observe: add one of polyloss_lightning.losses as a "
            "submodule (self.loss_fn = Poly1CrossEntropyLoss()), or add a callback that replaces its losses"
        )
    missing = [path for path in losses or () if path not in found]
    if missing:
        raise ValueError(f"`losses` must be among {sorted(found)}, the paths of the losses, got {missing}")
    return {path: loss for path, loss in found.items() if losses is None or path in losses}


def check_unshared(
    found: dict[str, Observable],
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    others: Iterable[Sequence[str] | None],
) -> None:
    """Raise ``ValueError`` if another monitor observes one of ``found``; ``others`` are the ``losses`` of each."""
    for losses in others:
        shared = sorted(found.keys() & find_observables(trainer, pl_module, losses).keys())
        if shared:
            raise ValueError(
                f"two PolynomialTermMonitors monitor the same losses: {shared}; set `losses` on each monitor"
            )


def find_callbacks(trainer: pl.Trainer, kind: type[_C]) -> list[_C]:
    """Return the callbacks of ``trainer`` that are instances of ``kind``, in order."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kind)]
