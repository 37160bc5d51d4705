import builtins
import math
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from polyloss_lightning import _files
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
    def run(module=None, logger=None, data=None, **options):
        monitor = PolynomialTermMonitor(**{"figures": True, **options})
        trainer = make_trainer(callbacks=[monitor], max_epochs=2, logger=logger or False)
        module = module or observed()
        trainer.fit(module, datamodule=data)
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


@pytest.mark.parametrize("error", [OSError, ZeroDivisionError])
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
    with pytest.warns(UserWarning, match="Offline has no figures of .* are in .*: ConnectionError: no route"):
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


@pytest.mark.condition("PolynomialTermMonitor", "logger at a URL")
def test_record_and_figures_of_a_run_at_a_url_go_there(fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "memory://test_term_monitor_files"
    pictures = Pictures(url)
    sizes = {}
    pictures.log_image = lambda key, images: sizes.update({key: Path(images[0]).stat().st_size})
    fit(logger=pictures)
    assert len(read_record(f"{url}/pictures/run7").epochs) == 4
    assert _files.read(f"{url}/pictures/run7/figures/terms.png").startswith(b"\x89PNG")
    assert len(sizes) == 5
    assert min(sizes.values()) > 1000
    assert not list(tmp_path.iterdir())


def test_a_logger_without_a_folder_and_images_names_the_place_of_record_and_figures(fit, tmp_path, caplog):
    class Metrics(Pictures):
        log_image = save_dir = None

    fit(logger=Metrics(None))
    folder = tmp_path / "pictures" / "run7"
    assert len(read_record(folder).epochs) == 4
    assert (folder / "figures" / "terms.png").exists()
    said = [message for message in caplog.messages if "polynomial terms" in message]
    assert said == [
        f"Metrics has no folder: the record and figures of the polynomial terms go to {folder}",
        f"Metrics takes no figures: those of the polynomial terms are in {folder}/figures",
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own packages
@pytest.mark.condition("PolynomialTermMonitor", "MLflow")
def test_mlflow_gets_record_and_figures_as_artifacts(fit, make_trainer, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    artifacts = tmp_path / "artifacts"
    logger = MLFlowLogger(tracking_uri=store, artifact_location=artifacts.as_uri())
    trainer, module = fit(logger=logger)
    (kept,) = artifacts.glob("*/artifacts")
    assert {path.name for path in (kept / "figures").iterdir()} >= {"terms.png", "pt_histogram.png"}
    assert len(read_record(kept).epochs) == 4
    trainer.test(module, verbose=False)
    assert len(read_record(kept).epochs) == 5
    assert len(read_record(tmp_path / logger.experiment_id / logger.run_id).epochs) == 5


@pytest.mark.condition("PolynomialTermMonitor", "LightningCLI, both namespaces")
def test_the_loggers_of_the_other_namespace_count_too(observed, tmp_path):
    other = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")

    class Module(other.LightningModule):
        training_step, step = observed.training_step, observed.step
        configure_optimizers, train_dataloader = observed.configure_optimizers, observed.train_dataloader

    module = Module()
    module.__dict__.update(observed().__dict__)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    logger = other.loggers.TensorBoardLogger(tmp_path)
    trainer = other.Trainer(
        accelerator="cpu", max_epochs=1, logger=logger, callbacks=[PolynomialTermMonitor(figures=True)], **quiet
    )
    trainer.fit(module)
    assert len(read_record(tmp_path / "lightning_logs" / "version_0").epochs) == 1
    assert len(EventAccumulator(trainer.log_dir).Reload().Tags()["images"]) == 5
