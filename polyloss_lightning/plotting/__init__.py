"""Figures of the losses and of recorded runs, drawn with matplotlib but without pyplot."""

from polyloss_lightning.plotting.confusion import confusion_matrix_figure
from polyloss_lightning.plotting.curves import curve_figures
from polyloss_lightning.plotting.reliability import reliability_figure
from polyloss_lightning.plotting.run import run_figures
from polyloss_lightning.plotting.save import save_figures, save_run_figures

__all__ = [
    "confusion_matrix_figure",
    "curve_figures",
    "reliability_figure",
    "run_figures",
    "save_figures",
    "save_run_figures",
]
