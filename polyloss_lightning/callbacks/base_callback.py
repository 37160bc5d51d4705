"""The base class of callbacks that both names of Lightning accept."""

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
            """A callback of ``lightning.pytorch`` and of ``pytorch_lightning``.

            Their Trainers call whatever has the hooks, but the LightningCLI of each takes only its own class.
            """
