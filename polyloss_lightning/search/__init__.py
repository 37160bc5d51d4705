"""Does PolyLoss help on my data, and with which epsilon? Settings compared honestly: explore, then confirm."""

from polyloss_lightning.search.comparison import Comparison, Difference, Picks, compare, pick

__all__ = ["Comparison", "Difference", "Picks", "compare", "pick"]
