"""The base class of our callbacks, accepted by both ``lightning.pytorch`` and ``pytorch_lightning``."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

if TYPE_CHECKING:
    _Callback = pl.Callback
else:
    # The Trainers accept any object with the right hooks, but each LightningCLI accepts only callbacks that derive from
    # the `Callback` class of its own package.
    try:
        from pytorch_lightning import Callback as _OtherCallback
    except ImportError:
        _Callback = pl.Callback
    else:
        _Callback = type("_Callback", (pl.Callback, _OtherCallback), {})


class Callback(_Callback):
    """A callback that shows its arguments, and checks the format of a saved state."""

    @override
    def __repr__(self) -> str:
        names = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def _can_restore(self, state: Mapping[str, Any], version: int) -> bool:
        """Return whether ``state`` has the format ``version``; warn if it has not."""
        if state.get("version") == version:
            return True
        rank_zero_warn(
            f"The state of {type(self).__name__} in the checkpoint has format {state.get('version')}, but this version "
            f"of polyloss_lightning reads format {version}: the state is not restored."
        )
        return False
