"""The record and the figures of a monitored run: what is in them, and what happens if they cannot be written."""

import math
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from polyloss_lightning import _files
from polyloss_lightning.callbacks import PolynomialTermMonitor
from polyloss_lightning.losses import Poly1FocalLoss
from polyloss_lightning.record import RECORD_NAME, RecordWriter, read_record


def test_every_pass_is_recorded_as_it_was_logged(fit, observed, tmp_path):
    module = observed(loss_fn=Poly1FocalLoss([1.0, 0.5], gamma=1.5, num_terms=7))
    trainer, _ = fit(module, CSVLogger(tmp_path), per_class=True, figures=False)
    record = read_record(trainer.log_dir)
    assert [(e.stage, e.loss, e.epoch, e.step) for e in record.epochs] == [
        (stage, "loss_fn", epoch, 5 * (epoch + 1)) for epoch in (0, 1) for stage in ("val", "train")
    ]
    for stage in ("val", "train"):
        last = record.select(stage)[-1]
        for name, value in last.metrics.items():
            assert float(trainer.callback_metrics[f"{stage}/poly/{name}"]) == pytest.approx(value, rel=1e-6)
        assert (last.epsilon, last.gamma, last.num_terms) == ((1.0, 0.5), 1.5, 7)
        assert len(last.pt_histogram) == 50
        assert sum(last.pt_histogram) == sum(last.classes.weight) == 16
        assert not any(math.isnan(value) for value in last.classes.pt)
    assert record.class_counts == [float(weight) for weight in record.select("train")[0].classes.weight]
    assert not (tmp_path / "lightning_logs" / "version_0" / "figures").exists()


@pytest.mark.condition("PolynomialTermMonitor", "no logger")
def test_without_a_logger_they_are_in_the_default_folder(fit, tmp_path, caplog):
    for _ in range(2):  # the second run replaces the record of the first
        with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
            fit()
        assert f"there is no logger: the record and figures of the polynomial terms go to {tmp_path}" in caplog.text
        assert len(read_record(tmp_path).epochs) == 4
        assert (tmp_path / "figures" / "terms.png").exists()


def test_a_fast_dev_run_writes_nothing(observed, make_trainer, tmp_path):
    make_trainer(callbacks=[PolynomialTermMonitor(figures=True)], fast_dev_run=True).fit(observed())
    assert not list(tmp_path.rglob("*"))


def test_record_can_be_turned_off(fit, tmp_path):
    fit(logger=CSVLogger(tmp_path), record=False)
    assert not list(tmp_path.rglob(RECORD_NAME))
    assert not list(tmp_path.rglob("*.png"))


def test_a_new_run_in_an_old_folder_begins_a_new_record_and_a_test_adds_to_it(fit, observed, make_trainer, tmp_path):
    for _ in range(2):
        trainer, module = fit(logger=TensorBoardLogger(tmp_path, version=1), figures=False)
        assert len(read_record(trainer.log_dir).epochs) == 4
    trainer.test(module, verbose=False)
    later = make_trainer(callbacks=[PolynomialTermMonitor()], logger=TensorBoardLogger(tmp_path, version=1))
    later.validate(module, verbose=False)
    stages = [epoch.stage for epoch in read_record(trainer.log_dir).epochs]
    assert stages == ["val", "train", "val", "train", "test", "val"]


@pytest.mark.parametrize("error", [OSError, ZeroDivisionError])
def test_figures_that_cannot_be_drawn_end_no_run(fit, tmp_path, monkeypatch, error):
    def fails(*args, **kwargs):
        raise error("the disk is full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails)
    with pytest.warns(UserWarning, match=f"no figures of the polynomial terms: {error.__name__}: the disk is full"):
        trainer, _ = fit(logger=CSVLogger(tmp_path))
    assert len(read_record(trainer.log_dir).epochs) == 4


def test_a_record_that_cannot_be_written_ends_no_run(fit, tmp_path, monkeypatch):
    def fails(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr(RecordWriter, "write", fails)
    with pytest.warns(UserWarning, match="record of the polynomial terms was not written.*OSError: the disk is full"):
        trainer, _ = fit(logger=CSVLogger(tmp_path))
    assert "train/poly/loss" in trainer.callback_metrics


def test_the_record_of_a_monitor_of_validation_alone_is_new_too(fit, tmp_path):
    for _ in range(2):
        fit(logger=TensorBoardLogger(tmp_path, version=1), figures=False, stages=["val"])
    lines = (tmp_path / "lightning_logs" / "version_1" / RECORD_NAME).read_text().splitlines()
    assert len(lines) == 3


@pytest.mark.condition("PolynomialTermMonitor", "damaged record")
def test_a_damaged_record_ends_neither_a_test_nor_a_resumed_fit(fit, make_trainer, tmp_path):
    trainer, module = fit(logger=TensorBoardLogger(tmp_path, version=1), figures=False)
    checkpoint = tmp_path / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    file = Path(trainer.log_dir, RECORD_NAME)
    later = {"logger": TensorBoardLogger(tmp_path, version=1), "max_epochs": 3}
    for run, kept in (
        (lambda t: t.test(module, verbose=False), 4),
        (lambda t: t.fit(module, ckpt_path=checkpoint, weights_only=True), 5),
    ):
        file.write_bytes(file.read_bytes() + b"\0" * 64)
        with pytest.warns(UserWarning, match="is damaged") as warned:
            run(make_trainer(callbacks=[PolynomialTermMonitor(figures=False)], **later))
        assert sum("is damaged" in str(warning.message) for warning in warned) == 1
        assert len(read_record(file).epochs) > kept
    assert len(list(file.parent.glob("poly_terms.damaged-*.jsonl"))) == 2


def test_a_disk_that_is_full_for_one_epoch_costs_no_line(fit, tmp_path, monkeypatch):
    write, full = _files.write, iter([True, True, False])

    def once(path, data):
        if next(full):
            raise OSError("the disk is full")
        write(path, data)

    monkeypatch.setattr(_files, "write", once)
    with pytest.warns(UserWarning, match="was not written.*the disk is full") as warned:
        trainer, _ = fit(logger=CSVLogger(tmp_path), figures=False)
    assert sum("was not written" in str(warning.message) for warning in warned) == 1
    assert len(read_record(trainer.log_dir).epochs) == 4


def datamodule(loader):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return loader

        val_dataloader = train_dataloader

    return Data()


def test_figures_of_classes_without_samples_end_no_fit(fit, observed, tmp_path):
    data = datamodule(observed().loader)
    data.class_counts = (0, 0, 0)
    trainer, _ = fit(data=data, logger=CSVLogger(tmp_path), per_class=True)
    assert Path(trainer.log_dir, "figures", "classes.png").exists()


def test_the_record_contains_the_class_names_of_the_datamodule(fit, observed, tmp_path):
    data = datamodule(observed().loader)
    data.class_names = ("cat", "dog", "fox")
    trainer, _ = fit(data=data, logger=CSVLogger(tmp_path), figures=False)
    assert read_record(trainer.log_dir).class_names == ["cat", "dog", "fox"]


@pytest.mark.parametrize("names", [[0, 1, 2], np.array(["cat", "dog", "fox"])], ids=["numbers", "array"])
def test_class_names_of_any_kind_are_written_as_text(fit, observed, tmp_path, names):
    data = datamodule(observed().loader)
    data.class_names = names
    trainer, _ = fit(data=data, logger=CSVLogger(tmp_path), figures=False)
    assert read_record(trainer.log_dir).class_names == [str(name) for name in names]


def test_a_fit_after_a_validation_begins_a_new_record_as_well(observed, make_trainer, tmp_path):
    def trainer():
        return make_trainer(callbacks=[PolynomialTermMonitor()], max_epochs=2, logger=False)

    trainer().fit(observed())
    module, second = observed(), trainer()
    second.validate(module, module.loader, verbose=False)
    second.fit(module)
    assert [(epoch.stage, epoch.epoch) for epoch in read_record(tmp_path).epochs] == [
        (stage, epoch) for epoch in (0, 1) for stage in ("val", "train")
    ]
