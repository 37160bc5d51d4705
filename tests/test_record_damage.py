"""A record that is damaged, deleted or on a full disk: nothing that can be read is lost, and writing goes on."""

import errno
import json
import os
import warnings
from contextlib import suppress
from functools import partial

import pytest

from polyloss_lightning import _files
from polyloss_lightning.record import RECORD_NAME, EpochRecord, RecordWriter, read_record


def epoch(number, stage="train"):
    return EpochRecord(stage, "loss_fn", number, 10 * (number + 1), (1.0,), 0.0, None, {"pt": 0.4}, (1.0, 2.0))


@pytest.fixture
def record(tmp_path):
    """The file of a record of two epochs."""
    RecordWriter(tmp_path, append=False).write([epoch(0), epoch(1)], [3.0, 2.0])
    return tmp_path / RECORD_NAME


def line(**fields):
    values = {"stage": "train", "loss": "a", "epoch": 0, "step": 1, "epsilon": [1.0], "gamma": 0.0, "num_terms": None}
    rest = {"metrics": {"pt": 0.5}, "pt_histogram": [1.0], "classes": None}
    return json.dumps({**values, **rest, **fields}).encode()


DAMAGED_LINES = {
    "zeros": b"\0" * 200,
    "not utf-8": b"\xff\xfe",
    "not json": b"step,loss",
    "half a line": line()[:50],
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "empty": b"",
    "another object": b'{"a": 1}',
    "nested too deep": b"[" * 100_000,
    "a field is missing": line().replace(b'"gamma": 0.0, ', b""),
    "stage": line(stage=3),
    "epoch": line(epoch="1"),
    "a boolean epoch": line(epoch=True),
    "step": line(step=1.5),
    "epsilon": line(epsilon=1.0),
    "text in epsilon": line(epsilon=["1"]),
    "too large": line(gamma=10**400),
    "num_terms": line(num_terms="all"),
    "metrics": line(metrics=[1.0]),
    "a metric": line(metrics={"pt": {}}),
    "histogram": line(pt_histogram="1"),
    "classes": line(classes=[]),
    "classes with too few fields": line(classes={"pt": [1.0]}),
}


def only(warned):
    (warning,) = warned
    return str(warning.message)


@pytest.mark.parametrize("place", ["middle", "end", "end without line feed"])
@pytest.mark.parametrize("damage", DAMAGED_LINES.values(), ids=DAMAGED_LINES)
def test_a_damaged_line_is_set_aside_and_the_record_goes_on(record, damage, place):
    header, first, second = record.read_bytes().splitlines(keepends=True)
    ends = {"middle": [damage + b"\n", second], "end": [second, damage + b"\n"]}
    contents = b"".join([header, first, *ends.get(place, [second, damage])])
    record.write_bytes(contents)
    writer = RecordWriter(record.parent, append=True)
    if contents == header + first + second:  # nothing was added
        writer.write([epoch(2)])
    else:
        with pytest.warns(UserWarning, match="is damaged in line [34]") as warned:
            writer.write([epoch(2)])
        aside = record.with_name("poly_terms.damaged-1.jsonl")
        assert str(aside) in only(warned)
        assert aside.read_bytes() == contents
    writer.write([epoch(3)])
    assert read_record(record).epochs == [epoch(number) for number in range(4)]
    assert read_record(record).class_counts == [3.0, 2.0]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "is not a record"),
        (b"\0" * 100, "is not a record"),
        (b"step,loss", "is not a record"),
        (b'{"format": "other", "version": 1, "class_counts": null}', "is not a record"),
        (b'{"format": "polyloss_lightning.terms", "class_counts": null}', "is not a record"),
        (b'{"format": "polyloss_lightning.terms", "version": "1", "class_counts": null}', "is not a record"),
        (b'{"format": "polyloss_lightning.terms", "version": 1, "class_counts": 3}', "is not a record"),
        (
            b'{"format": "polyloss_lightning.terms", "version": 1, "class_counts": null, "class_names": [1]}',
            "not a rec",
        ),
    ],
)
def test_lines_below_a_damaged_header_are_kept(record, header, message):
    _, first, second = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(header + b"\n" + first + second)
    with pytest.raises(ValueError, match=message):
        read_record(record)
    with pytest.warns(UserWarning, match=message):
        RecordWriter(record.parent, append=True).write([epoch(2)], [5.0, 1.0])
    assert read_record(record).epochs == [epoch(0), epoch(1), epoch(2)]
    assert read_record(record).class_counts == [5.0, 1.0]


def test_a_record_of_a_later_version_is_set_aside_whole(record):
    contents = record.read_bytes().replace(b'"version": 1', b'"version": 2')
    record.write_bytes(contents)
    with pytest.warns(UserWarning, match="has version 2, but"):
        RecordWriter(record.parent, append=True).write([epoch(2)])
    assert read_record(record).epochs == [epoch(2)]
    assert record.with_name("poly_terms.damaged-1.jsonl").read_bytes() == contents


def test_each_damaged_file_has_a_name_of_its_own(record):
    for number in (1, 2):
        record.write_bytes(record.read_bytes() + b"\0\0")
        with pytest.warns(UserWarning, match=f"poly_terms.damaged-{number}.jsonl"):
            RecordWriter(record.parent, append=True).write([epoch(2)])


def test_reading_leaves_damaged_lines_out_with_one_warning(record):
    header, first, second = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join([header, b"\0\0\n", first, *[b"x\n"] * 9, second]))
    with pytest.warns(UserWarning, match="is damaged in line 2, 4, 5, 6, 7 and others") as warned:
        assert read_record(record).epochs == [epoch(0), epoch(1)]
    only(warned)


def test_a_record_cut_at_any_byte_keeps_its_complete_lines_and_goes_on(record, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda number: None)  # faster
    contents = record.read_bytes()
    ends = [position + 1 for position, byte in enumerate(contents) if byte == ord("\n")]
    for length in range(len(contents) + 1):
        record.write_bytes(contents[:length])
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            RecordWriter(record.parent, append=True).write([epoch(2)])
        assert len(warned) == (length not in ends)
        complete = sum(end <= length for end in ends[1:])
        assert read_record(record).epochs == [*[epoch(0), epoch(1)][:complete], epoch(2)]
        for aside in record.parent.glob("*.damaged-*"):
            assert aside.read_bytes() == contents[:length]
            aside.unlink()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_record_deleted_in_mid_run_gets_a_header_again(tmp_path, what):
    folder = tmp_path / "logs"
    writer = RecordWriter(folder, append=False, class_names=["a", "b"])
    writer.write([epoch(0)], [3, 2])
    (folder / RECORD_NAME).unlink()
    if what == "folder":
        folder.rmdir()
    writer.write([epoch(1)])
    writer.write([epoch(2)])
    record = read_record(folder)
    assert record.epochs == [epoch(1), epoch(2)]
    assert (record.class_counts, record.class_names) == ([3, 2], ["a", "b"])


class FullDisk:
    """A file that takes half of what is written, and fails."""

    def __init__(self, file, fails_at):
        self.file, self.fails_at = file, fails_at

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
        if self.fails_at == "close" and error == (None, None, None):
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, data):
        if self.fails_at == "write":
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")
        self.file.write(data)

    def flush(self):
        self.file.flush()
        if self.fails_at == "flush":
            raise OSError(errno.ENOSPC, "No space left on device")

    def fileno(self):
        return self.file.fileno()


def open_on_full_disk(fails_at, *args, **kwargs):
    return FullDisk(open(*args, **kwargs), fails_at)


@pytest.mark.parametrize("fails_at", ["open", "write", "flush", "fsync", "close", "replace"])
@pytest.mark.parametrize("state", ["new", "replaced", "continued", "resumed"])
def test_what_a_full_disk_refused_is_written_when_there_is_room_again(tmp_path, monkeypatch, fails_at, state):
    """``flush``, ``fsync`` and ``replace`` happen only when the whole file is written."""
    before = [] if state in ("new", "replaced") else [epoch(0)]
    writer = RecordWriter(tmp_path, append=False)
    if state != "new":
        writer.write([epoch(0)])
    if state in ("replaced", "resumed"):
        writer = RecordWriter(tmp_path, append=state == "resumed")

    def fails(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        if fails_at in ("fsync", "replace"):
            full.setattr(os, fails_at, fails)
        else:
            opened = fails if fails_at == "open" else partial(open_on_full_disk, fails_at)
            full.setattr(_files, "open", opened, raising=False)
        with suppress(OSError):
            writer.write([epoch(1)])
        readable = [] if state == "new" else read_record(tmp_path).epochs
        assert readable in ([*before], [*before, epoch(1)], [epoch(0)])
    writer.write([epoch(2)])
    assert read_record(tmp_path).epochs == [*before, epoch(1), epoch(2)]
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_NAME]


def test_two_writers_of_one_record_lose_no_line(tmp_path):
    RecordWriter(tmp_path, append=False).write([epoch(0)])
    writers = [RecordWriter(tmp_path, append=True) for _ in range(2)]
    for number in range(1, 5):
        writers[number % 2].write([epoch(number)])
    assert read_record(tmp_path).epochs == [epoch(number) for number in range(5)]


def test_a_record_at_a_url_is_written_read_and_repaired():
    url = "memory://test_record_damage/run"
    writer = RecordWriter(url, append=False)
    writer.write([epoch(0)], [3, 2])
    writer.write([epoch(1)])
    assert read_record(url).epochs == read_record(f"{url}/{RECORD_NAME}").epochs == [epoch(0), epoch(1)]
    _files.write(f"{url}/{RECORD_NAME}", _files.read(f"{url}/{RECORD_NAME}") + b"\0\0")
    with pytest.warns(UserWarning, match=f"A copy is {url}/poly_terms.damaged-1.jsonl"):
        RecordWriter(url, append=True).write([epoch(2)])
    assert read_record(url).epochs == [epoch(0), epoch(1), epoch(2)]
    assert read_record(url).class_counts == [3, 2]
    with pytest.raises(FileNotFoundError, match="no record of polynomial terms at memory://test_record_damage/none"):
        read_record("memory://test_record_damage/none")
