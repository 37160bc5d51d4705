"""Writing the record of a run."""

import os
import warnings
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from polyloss_lightning import _files
from polyloss_lightning.record.epochs import EpochRecord
from polyloss_lightning.record.lines import FORMAT, RECORD_NAME, VERSION, Contents, encode, parse


class RecordWriter:
    """Writes the record of a run. Nothing is read or written before the first call of :meth:`write`.

    Lines that cannot be written are kept, and are written with the next ones.

    Args:
        log_dir: folder of the record, or its URL; created if it does not exist.
        append: continue an existing record; False begins a new one. If the existing file is damaged, a warning is
            issued, a copy of it is kept under another name, and the lines that can be read are continued.
        class_names: name of each class, if known.

    Example:
        >>> import tempfile
        >>> from polyloss_lightning.record import read_record
        >>> epoch = EpochRecord("train", "loss_fn", 0, 12, (1.0,), 0.0, None, {"pt": 0.4}, [0.0] * 50)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     RecordWriter(folder, append=False).write([epoch], class_counts=[30, 10])
        ...     read_record(folder).select("train")[0].metrics
        {'pt': 0.4}
    """

    def __init__(
        self, log_dir: str | os.PathLike[str], *, append: bool, class_names: Sequence[str] | None = None
    ) -> None:
        self.folder = os.fspath(log_dir)
        self.path = _files.join(log_dir, RECORD_NAME)
        self._header: dict[str, Any] = {"class_counts": None, "class_names": class_names and list(class_names)}
        self._continues = append  # whether to keep the lines that the file contains
        self._intact = False  # whether the file begins with this header and ends with a complete line
        self._read = not append
        self._pending: list[bytes] = []

    def write(self, epochs: Iterable[EpochRecord], class_counts: Sequence[float] | None = None) -> None:
        """Add ``epochs`` to the file, and ``class_counts`` to its header, even if they become known late."""
        # Not dataclasses.asdict, which copies each number: with 20,000 classes that takes most of an epoch's end.
        self._pending += [encode({**vars(one), "classes": one.classes and vars(one.classes)}) for one in epochs]
        damage = "" if self._read else self._resume()
        if class_counts is not None and self._header["class_counts"] is None:
            self._header["class_counts"] = list(class_counts)
            self._intact = False
        intact, self._intact = self._intact, False  # after an error the file may end in the middle of a line
        if not (intact and self._append()):
            self._replace()
        self._intact = self._continues = True
        self._pending = []
        if damage:
            warnings.warn(damage, stacklevel=2)

    def _append(self) -> bool:
        try:
            _files.append(self.path, b"".join(self._pending))
        except FileNotFoundError:  # somebody deleted the record while the run goes on
            return False
        return True

    def _replace(self) -> None:
        lines = self._contents().lines if self._continues else []
        header = encode({"format": FORMAT, "version": VERSION, **self._header})
        _files.write(self.path, b"".join([header, *lines, *self._pending]))

    def _resume(self) -> str:
        """Read the header of the existing record. If the file is damaged, keep a copy and return what happened."""
        found, note = self._contents(), ""
        if found.damage:
            aside = self._unused_name()
            _files.copy(self.path, aside)
            note = f"{found.damage}. A copy is {aside}, and the record goes on with its {len(found.lines)} intact lines"
        for name, value in found.header.items():
            self._header[name] = value if self._header[name] is None else self._header[name]
        self._intact = found.header == self._header and not note
        self._read = True
        return note

    def _contents(self) -> Contents:
        try:
            return parse(_files.read(self.path), self.path)
        except FileNotFoundError:
            return Contents({}, [], [], "")

    def _unused_name(self) -> str:
        names = (_files.join(self.folder, f"poly_terms.damaged-{number}.jsonl") for number in count(1))
        return next(name for name in names if not _files.exists(name))
