"""Reading the record of a run."""

import os
import warnings

from polyloss_lightning import _files
from polyloss_lightning.record.epochs import Record
from polyloss_lightning.record.lines import RECORD_NAME, parse


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read the record of a run.

    Damaged lines are left out with a warning. An incomplete last line is left out silently, because the run may be
    writing it.

    Args:
        path: the file, or the folder of logs that contains ``poly_terms.jsonl``, or the URL of either.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a record, or has a newer version than this package supports.
    """
    file = _files.join(path, RECORD_NAME) if _files.is_dir(path) else os.fspath(path)
    try:
        data = _files.read(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"no record of polynomial terms at {file}") from None
    complete = data[: data.rfind(b"\n") + 1]
    found = parse(complete, file)
    if not found.header:
        raise ValueError(found.damage)
    if found.damage:
        warnings.warn(f"{found.damage}; the rest is used", stacklevel=2)
    epochs = {(e.stage, e.loss, e.epoch, e.step): e for e in found.epochs}
    return Record(found.header["class_counts"], list(epochs.values()), found.header["class_names"])
