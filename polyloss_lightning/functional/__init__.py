"""The losses as pure functions."""

from polyloss_lightning.functional.cross_entropy import poly1_cross_entropy

__all__ = ["poly1_cross_entropy"]
