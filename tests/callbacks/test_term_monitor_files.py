import builtins
import math
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from polyloss_lightning.callbacks import PolynomialTermMonitor
from polyloss_lightning.losses import Poly1FocalLoss
from polyloss_lightning.record import RECORD_NAME, RecordWriter, read_record


class Pictures(Logger):
    """A logger with an image method, as several have, in a folder that its runs share."""

    name, version = "pictures", "run7"

    def __init__(self, folder):
        super().__init__()
        self.save_folder, self.images = folder, {}

    @property
    def save_dir(self):
        return str(self.save_folder)

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass

    def log_image(self, key, images):
        self.images[key] = images


@pytest.fixture
def fit(observed, make_trainer):
    def run(module=None, logger=None, **options):
        monitor = PolynomialTermMonitor(**options)
        trainer = make_trainer(callbacks=[monitor], max_epochs=2, logger=logger or False)
        module = module or observed()
        trainer.fit(module)
        return trainer, module

    return run


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


def test_figures_are_written_and_sent(fit, tmp_path):
    pictures = Pictures(tmp_path / "other")
    trainer, _ = fit(logger=[TensorBoardLogger(tmp_path), pictures], per_class=True)
    written = {path.stem for path in (tmp_path / "lightning_logs" / "version_0" / "figures").glob("*.png")}
    assert {"terms", "first_term_share", "pt_histogram", "classes"} <= written
    assert set(pictures.images) == {f"poly/{name}" for name in written}
    events = EventAccumulator(trainer.log_dir).Reload()
    assert set(events.Tags()["images"]) == {f"poly/{name}" for name in written}


def test_a_logger_without_a_folder_of_the_run_gets_one(fit, tmp_path):
    fit(logger=Pictures(tmp_path), figures=False)
    assert len(read_record(tmp_path / "pictures" / "run7").epochs) == 4


def test_without_a_logger_nothing_is_written(fit, tmp_path):
    fit()
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


def test_without_matplotlib_a_line_names_the_extra_and_the_run_goes_on(fit, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.warns(UserWarning, match=r"no figures of the polynomial terms: .*polyloss-lightning\["):
        fit(logger=Pictures(tmp_path))
    assert len(read_record(tmp_path / "pictures" / "run7").epochs) == 4


@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError])
def test_figures_that_cannot_be_drawn_end_no_run(fit, tmp_path, monkeypatch, error):
    def fails(*args, **kwargs):
        raise error("the disk is full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails)
    with pytest.warns(UserWarning, match=f"no figures of the polynomial terms: {error.__name__}: the disk is full"):
        trainer, _ = fit(logger=CSVLogger(tmp_path))
    assert len(read_record(trainer.log_dir).epochs) == 4


def test_a_logger_that_takes_no_figures_stands_in_nobodys_way(fit, tmp_path):
    class Offline(Pictures):
        def log_image(self, key, images):
            raise ConnectionError("no route")

    pictures = Pictures(tmp_path / "other")
    with pytest.warns(UserWarning, match="Offline has no figures of the polynomial terms: ConnectionError: no route"):
        fit(logger=[CSVLogger(tmp_path), Offline(tmp_path), pictures])
    assert "poly/terms" in pictures.images


def test_images_are_files_that_a_logger_can_read(fit, tmp_path):
    pictures = Pictures(tmp_path)
    fit(logger=pictures)
    for (path,) in pictures.images.values():
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert len(pictures.images) == 5


def test_a_record_that_cannot_be_written_ends_no_run(fit, tmp_path, monkeypatch):
    def fails(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr(RecordWriter, "write", fails)
    with pytest.warns(UserWarning, match="the record of the polynomial terms ends here: OSError: the disk is full"):
        trainer, _ = fit(logger=CSVLogger(tmp_path))
    assert "train/poly/loss" in trainer.callback_metrics


def test_the_record_of_a_monitor_of_validation_alone_is_new_too(fit, tmp_path):
    for _ in range(2):
        fit(logger=TensorBoardLogger(tmp_path, version=1), figures=False, stages=["val"])
    lines = (tmp_path / "lightning_logs" / "version_1" / RECORD_NAME).read_text().splitlines()
    assert len(lines) == 3
