"""Imports the packages of the extra ``search`` where they are used."""

import importlib
from typing import Any


def require(module: str) -> Any:
    """Import and return ``module``.

    Raises:
        ModuleNotFoundError: if it is missing; the message names the extra to install.

    Example:
        >>> require("json").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'polyloss search needs {error.name}: pip install "polyloss-lightning[search]"', name=error.name
        ) from error
