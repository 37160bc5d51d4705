"""Draws the figures of the pages with the package itself before the pages are read."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
from sphinx.application import Sphinx

from polyloss_lightning.plotting import curve_figures, run_figures
from polyloss_lightning.record import read_record

RUN_FIGURES = ("terms", "first_term_share", "classes", "pt_histogram", "loss_and_gradient")


def draw(app: Sphinx) -> None:
    """Write the figures of the losses and those of a real run to ``generated/figures``."""
    folder = Path(app.srcdir) / "generated" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figures = {f"curves_{name}": figure for name, figure in curve_figures().items()}
    figures |= {f"focal_{name}": figure for name, figure in curve_figures(gamma=2.0).items()}
    record = read_record(_trained(folder.parent / "run"))
    figures |= {f"run_{name}": figure for name, figure in run_figures(record).items() if name in RUN_FIGURES}
    with matplotlib.rc_context({"svg.hashsalt": "docs"}):  # the same file in every build
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _trained(folder: Path) -> Path:
    """Train the shipped config once in ``folder``, and return the record of the run."""
    if not folder.exists():
        folder.mkdir()
        command = [sys.executable, "-m", "polyloss_lightning", "fit", "--config", "digits_longtail"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the run of the figures failed:\n{done.stdout}\n{done.stderr}")
    (record,) = folder.rglob("poly_terms.jsonl")
    return record


def setup(app: Sphinx) -> dict[str, Any]:
    """Draw when the build begins."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
