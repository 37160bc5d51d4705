"""Telling mistakes in the command line or a config from faults of a program."""

import traceback
from pathlib import Path

import jsonargparse
import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException

import polyloss_lightning

MISTAKES = (MisconfigurationException, TypeError, ValueError, RuntimeError, OSError, ImportError)

_OURS, _LIGHTNING, _JSONARGPARSE = (
    Path(str(package.__file__)).parent for package in (polyloss_lightning, lightning, jsonargparse)
)


def is_mistake(error: BaseException) -> bool:
    """Return whether ``error`` is reported in one line: it was raised by our checks, or by those of Lightning.

    An error of a module of the user's own keeps its traceback. (``JSONARGPARSE_DEBUG=1`` keeps every traceback.)
    """
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        return True  # a checkpoint of another network
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if raised_in.is_relative_to(_OURS) or raised_in.is_relative_to(_JSONARGPARSE):
        return True
    is_check = isinstance(error, (MisconfigurationException, OSError, ValueError, ImportError))
    return is_check and raised_in.is_relative_to(_LIGHTNING)
