"""The losses that a monitor observes."""

from collections.abc import Iterable, Sequence

import lightning.pytorch as pl

from polyloss_lightning.callbacks.loss_override import PolyLossOverride
from polyloss_lightning.callbacks.trainer.find_losses import choose, find_losses
from polyloss_lightning.core import Observable


def observed_losses(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    losses: Sequence[str] | None,
    others: Iterable[Sequence[str] | None],
) -> dict[str, Observable]:
    """Return the losses in the module by path, and the functions that are replaced by an override by name.

    Args:
        trainer: the Trainer, with its overrides.
        pl_module: the module.
        losses: return only these paths; None returns all.
        others: the ``losses`` of each other monitor.

    Raises:
        ValueError: if there is no loss, one of ``losses`` does not exist, or another monitor observes the same loss.
    """
    every: dict[str, Observable] = {}
    for name, loss in find_losses(trainer, pl_module).items():
        every |= loss.observables() if isinstance(loss, PolyLossOverride) else {name: loss}
    found = choose(every, losses, "losses")
    for other in others:
        shared = sorted(found.keys() & choose(every, other, "losses").keys())
        if shared:
            raise ValueError(
                f"two PolynomialTermMonitors monitor the same losses: {shared}; set `losses` on each monitor"
            )
    return found
