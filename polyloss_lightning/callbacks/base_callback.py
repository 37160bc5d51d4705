"""The base class of our callbacks, accepted by both ``lightning.pytorch`` and ``pytorch_lightning``."""

from typing import TYPE_CHECKING

import lightning.pytorch as pl

if TYPE_CHECKING:
    Callback = pl.Callback
else:
    try:
        from pytorch_lightning import Callback as _OtherCallback
    except ImportError:
        Callback = pl.Callback
    else:

        class Callback(pl.Callback, _OtherCallback):
            """A callback of both ``lightning.pytorch`` and ``pytorch_lightning``.

            The Trainers accept any object with the right hooks, but each LightningCLI accepts only callbacks that
            derive from the ``Callback`` class of its own package.
            """
