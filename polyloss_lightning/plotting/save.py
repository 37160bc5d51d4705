"""Saving figures as PNG files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from polyloss_lightning.plotting.run import run_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figures(figures: Mapping[str, Figure], out_dir: str | Path) -> list[Path]:
    """Write each figure to ``out_dir`` as a PNG file with its name, and return the paths.

    ``/`` and other characters that should not be part of a file name are replaced by ``-``.

    Example:
        >>> import tempfile
        >>> from polyloss_lightning.plotting import curve_figures
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in save_figures(curve_figures(), folder)]
        ['loss_and_gradient.png', 'coefficients.png']
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        path = folder / (re.sub(r"[^A-Za-z0-9_.-]+", "-", name) + ".png")
        figure.savefig(path, dpi=100)
        paths.append(path)
    return paths


def save_run_figures(log_dir: str | Path, out_dir: str | Path | None = None) -> list[Path]:
    """Draw the figures of a run from its record and write them to files.

    Args:
        log_dir: folder that contains the record ``poly_terms.jsonl``, or the record itself.
        out_dir: folder of the figures; by default ``figures`` next to the record.

    Returns:
        Paths of the files; an empty list if the record contains no epoch.

    Raises:
        FileNotFoundError: if there is no record.
        ModuleNotFoundError: if matplotlib is missing.
    """
    from polyloss_lightning.record import read_record

    source = Path(log_dir)
    figures = run_figures(read_record(source))
    if not figures:
        return []
    return save_figures(figures, out_dir or (source if source.is_dir() else source.parent) / "figures")
