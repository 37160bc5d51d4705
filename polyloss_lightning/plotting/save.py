"""Saving figures as PNG files."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from polyloss_lightning import _files
from polyloss_lightning.plotting.run import run_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figures(figures: Mapping[str, Figure], out_dir: str | os.PathLike[str]) -> list[str]:
    """Write each figure to ``out_dir`` as a PNG file with its name, and return the paths.

    ``/`` and other characters that should not be part of a file name are replaced by ``-``.

    Args:
        figures: the figures by name.
        out_dir: folder of the files, or its URL; created if it does not exist.

    Example:
        >>> import tempfile
        >>> from polyloss_lightning.plotting import curve_figures
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [os.path.basename(path) for path in save_figures(curve_figures(), folder)]
        ['loss_and_gradient.png', 'coefficients.png']
    """
    paths = []
    for name, figure in figures.items():
        path = _files.join(out_dir, re.sub(r"[^A-Za-z0-9_.-]+", "-", name) + ".png")
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=100)
        _files.write(path, image.getvalue())
        paths.append(path)
    return paths


def save_run_figures(log_dir: str | os.PathLike[str], out_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Draw the figures of a run from its record and write them to files.

    Args:
        log_dir: folder that contains the record ``poly_terms.jsonl``, or the record itself, or the URL of either.
        out_dir: folder of the figures, or its URL; by default ``figures`` next to the record.

    Returns:
        Paths of the files; an empty list if the record contains no epoch.

    Raises:
        FileNotFoundError: if there is no record.
        ModuleNotFoundError: if matplotlib is missing.
    """
    figures = run_figures(log_dir)
    if not figures:
        return []
    folder = log_dir if _files.is_dir(log_dir) else os.path.dirname(os.fspath(log_dir))
    return save_figures(figures, out_dir or _files.join(folder, "figures"))
