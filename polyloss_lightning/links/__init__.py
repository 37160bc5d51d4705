"""From logits and targets to the entries of a polynomial loss: log Pt, and the weight of each entry.

A link knows torch's rules for targets, weights and the denominator of ``mean``; it knows nothing of epsilon.
"""

from polyloss_lightning.links.entries import Entries, check_ignore_index
from polyloss_lightning.links.sigmoid import TargetFormat, sigmoid_axes, sigmoid_entries, sigmoid_focal_entries
from polyloss_lightning.links.softmax import softmax_axes, softmax_entries

__all__ = [
    "Entries",
    "TargetFormat",
    "check_ignore_index",
    "sigmoid_axes",
    "sigmoid_entries",
    "sigmoid_focal_entries",
    "softmax_axes",
    "softmax_entries",
]
