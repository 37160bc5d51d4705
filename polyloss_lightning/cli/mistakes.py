"""Distinguishes mistakes of the user (command line, config, files) from bugs, which keep their traceback."""

import re
import sysconfig
import traceback
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

import polyloss_lightning

MISTAKES = (MisconfigurationException, TypeError, ValueError, RuntimeError, OSError, ImportError, MemoryError)

_OURS = Path(polyloss_lightning.__file__).parent
_STANDARD, *_INSTALLED = (Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
# Besides the standard library.
_LIBRARIES = "lightning lightning_utilities jsonargparse torch torchmetrics torchvision fsspec yaml numpy PIL sklearn"
_LOGGERS = "tensorboard tensorboardX wandb mlflow neptune comet_ml litlogger requests urllib3"
_KNOWN = {*_LIBRARIES.split(), *_LOGGERS.split()}


def is_mistake(error: Exception) -> bool:
    """Return whether ``error`` is reported in one line.

    It is if only this package and the libraries above took part in it. An error in a module of the user's own or of
    another package keeps its traceback. (``JSONARGPARSE_DEBUG=1`` keeps every traceback.)
    """
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    if not all(map(_is_library, files)):
        return False
    if _loads_checkpoint(error) or any(file.parts[-3:-1] == ("pytorch", "loggers") for file in files):
        return True  # a file that is not a checkpoint and a service on the net may raise errors of any type
    by_us = any(file.is_relative_to(_OURS) and file.parent.name != "cli" for file in files)
    return isinstance(error, MISTAKES) or (isinstance(error, AttributeError) and not by_us)


def describe(error: Exception) -> str:
    """Return the message of a mistake."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).strip()
    if _loads_checkpoint(error) and not isinstance(error, MISTAKES):
        # Anything may go wrong in a file that is not a checkpoint.
        first = text.partition("\n")[0].partition(". ")[0]
        return f"`ckpt_path` is not a checkpoint that Lightning can load: {type(error).__name__} {first}".strip()
    return text or type(error).__name__


def _loads_checkpoint(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename.endswith("checkpoint_connector.py") or "ckpt_path" in frame.name for frame in frames)


def check_numbers(trainer: Trainer) -> None:
    """Refuse numbers for which Lightning has no message of its own.

    Raises:
        ValueError: if a number is out of range.
    """
    for name, least in (("accumulate_grad_batches", 1), ("check_val_every_n_epoch", 1), ("gradient_clip_val", 0)):
        value = getattr(trainer, name)
        if value is not None and value < least:
            raise ValueError(f"`trainer.{name}` must be at least {least}, got {value}")


def _is_library(file: Path) -> bool:
    if file.parts[0].startswith("<") or file.is_relative_to(_OURS):
        return True
    path = file.resolve()
    for folder in _INSTALLED:
        if path.is_relative_to(folder):
            return path.relative_to(folder).parts[0] in _KNOWN
    return path.is_relative_to(_STANDARD)
