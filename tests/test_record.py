import json
import math

import pytest

from polyloss_lightning.record import RECORD_NAME, ClassRecord, EpochRecord, RecordWriter, read_record


def epoch(number=0, stage="train", loss="loss_fn", **fields):
    values = {
        "stage": stage,
        "loss": loss,
        "epoch": number,
        "step": 10 * (number + 1),
        "epsilon": (1.0, -0.25),
        "gamma": 0.5,
        "num_terms": None,
        "metrics": {"loss": 1.25, "pt": 0.1},
        "pt_histogram": tuple(0.5 * bin for bin in range(50)),
        "classes": ClassRecord((2.0, 1.0), (0.5, 0.25), (0.75, 0.5), (1.5, 0.5)),
    }
    return EpochRecord(**{**values, **fields})


def test_what_is_written_is_read_back(tmp_path):
    epochs = [epoch(0), epoch(0, "val", classes=None), epoch(1, num_terms=3)]
    writer = RecordWriter(tmp_path, append=False)
    writer.write(epochs[:2], [30, 10])
    writer.write(epochs[2:])
    for place in (tmp_path, tmp_path / RECORD_NAME):
        record = read_record(place)
        assert record.epochs == epochs
        assert record.class_counts == [30, 10]


def test_every_line_is_json_that_any_reader_takes(tmp_path):
    def refuse(name):
        raise AssertionError(name)

    RecordWriter(tmp_path, append=False).write([epoch(metrics={"loss": math.inf, "pt": math.nan})])
    header, line = [
        json.loads(line, parse_constant=refuse) for line in (tmp_path / RECORD_NAME).read_text().splitlines()
    ]
    assert header == {"format": "polyloss_lightning.terms", "version": 1, "class_counts": None, "class_names": None}
    assert line["metrics"] == {"loss": None, "pt": None}
    assert line["classes"]["pt"] == [0.5, 0.25]


def test_nan_comes_back_as_nan(tmp_path):
    classes = ClassRecord((0.0,), (math.nan,), (math.nan,), (0.0,))
    RecordWriter(tmp_path, append=False).write([epoch(metrics={"pt": math.nan}, classes=classes)])
    (read,) = read_record(tmp_path).epochs
    assert math.isnan(read.metrics["pt"])
    assert math.isnan(read.classes.pt[0])
    assert read.classes.weight == (0.0,)


def test_select_takes_stage_and_loss(tmp_path):
    epochs = [epoch(0), epoch(0, "val"), epoch(0, loss="aux"), epoch(1)]
    RecordWriter(tmp_path, append=False).write(epochs)
    record = read_record(tmp_path)
    assert record.select() == epochs
    assert record.select(stage="train") == [epochs[0], epochs[2], epochs[3]]
    assert record.select("train", "loss_fn") == [epochs[0], epochs[3]]
    assert record.select(loss="none") == []


def test_class_counts_may_become_known_late(tmp_path):
    writer = RecordWriter(tmp_path, append=False)
    writer.write([epoch(0, "val")])
    writer.write([epoch(0)], [3, 2])
    writer.write([epoch(1)], [3, 2])
    record = read_record(tmp_path)
    assert record.class_counts == [3, 2]
    assert len(record.epochs) == 3


def test_a_resumed_run_goes_on_and_its_repeated_epochs_replace_the_old_ones(tmp_path):
    RecordWriter(tmp_path, append=False).write([epoch(0), epoch(1)], [3, 2])
    again = epoch(1, metrics={"loss": 0.5})
    RecordWriter(tmp_path, append=True).write([again, epoch(2)])
    record = read_record(tmp_path)
    assert record.epochs == [epoch(0), again, epoch(2)]
    assert record.class_counts == [3, 2]


def test_a_new_run_replaces_an_old_record_when_it_first_writes(tmp_path):
    RecordWriter(tmp_path, append=False).write([epoch(0), epoch(1)])
    writer = RecordWriter(tmp_path, append=False)
    assert len(read_record(tmp_path).epochs) == 2
    writer.write([epoch(0)])
    assert len(read_record(tmp_path).epochs) == 1


def test_a_line_that_is_being_written_is_left_out_silently(tmp_path):
    RecordWriter(tmp_path, append=False).write([epoch(0), epoch(1)])
    file = tmp_path / RECORD_NAME
    file.write_text(file.read_text()[:-40])
    assert read_record(tmp_path).epochs == [epoch(0)]


def test_what_is_no_record_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no record of polynomial terms"):
        read_record(tmp_path)
    file = tmp_path / RECORD_NAME
    for text in ("", "step,loss\n1,2\n", '{"format": "other"}\n'):
        file.write_text(text)
        with pytest.raises(ValueError, match="not a record of polynomial terms"):
            read_record(tmp_path)
    file.write_text('{"format": "polyloss_lightning.terms", "version": 2, "class_counts": null}\n')
    with pytest.raises(ValueError, match="has version 2"):
        read_record(tmp_path)


def test_class_names_are_kept_by_a_resumed_run(tmp_path):
    RecordWriter(tmp_path, append=False, class_names=("cat", "dog")).write([epoch(0)])
    RecordWriter(tmp_path, append=True).write([epoch(1)], [3, 2])
    record = read_record(tmp_path)
    assert record.class_names == ["cat", "dog"]
    assert record.class_counts == [3, 2]
    assert len(record.epochs) == 2


def test_a_record_without_class_names_is_continued(tmp_path):
    old = {"format": "polyloss_lightning.terms", "version": 1, "class_counts": None}
    (tmp_path / RECORD_NAME).write_text(json.dumps(old) + "\n")
    RecordWriter(tmp_path, append=True, class_names=["cat", "dog"]).write([epoch(0)])
    assert read_record(tmp_path).class_names == ["cat", "dog"]
