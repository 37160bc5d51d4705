"""The record of the polynomial terms of a run, a JSON Lines file next to its logs.

The first line of ``poly_terms.jsonl`` is a header. Every other line is one pass over a stage (an epoch) for one loss::

    {"format": "polyloss_lightning.terms", "version": 1, "class_counts": [300, 120, 40],
     "class_names": ["cat", "dog", "fox"]}
    {"stage": "train", "loss": "loss_fn", "epoch": 0, "step": 12, "epsilon": [1.0], "gamma": 0.0, "num_terms": null,
     "metrics": {"term_1": 1.1, ..., "tail": 0.3, "loss": 1.9, "base_loss": 1.3, "correction": 0.6,
                 "first_term_share": 0.5, "pt": 0.4},
     "pt_histogram": [.. 50 numbers ..],
     "classes": {"weight": [..], "pt": [..], "first_term_share": [..], "first_term_gradient": [..]}}

The fields are those of :class:`Record`, :class:`EpochRecord` and :class:`ClassRecord`. JSON has no NaN, so
numbers that are not finite are ``null`` in the file, and are read as NaN. If two lines have the same stage, loss, epoch
and step, the later one counts, because a resumed run repeats the steps after its checkpoint. The folder may be a URL
that fsspec supports, such as ``s3://bucket/run``.
"""

from polyloss_lightning.record.epochs import ClassRecord, EpochRecord, Record
from polyloss_lightning.record.lines import RECORD_NAME
from polyloss_lightning.record.reader import read_record
from polyloss_lightning.record.writer import RecordWriter

__all__ = ["RECORD_NAME", "ClassRecord", "EpochRecord", "Record", "RecordWriter", "read_record"]
