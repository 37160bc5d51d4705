"""Does PolyLoss help on my data, and with which epsilon? Settings compared honestly: explore, then confirm."""

from polyloss_lightning.search.answer import Answer
from polyloss_lightning.search.comparison import Comparison, Difference, Picks, compare, pick
from polyloss_lightning.search.engine import search
from polyloss_lightning.search.fit import Fit
from polyloss_lightning.search.plan import Setting

__all__ = ["Answer", "Comparison", "Difference", "Fit", "Picks", "Setting", "compare", "pick", "search"]
