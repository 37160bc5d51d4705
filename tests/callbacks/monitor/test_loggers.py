"""Where the record and the figures of a monitored run go with each kind of logger."""

import builtins
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from polyloss_lightning import _files
from polyloss_lightning.callbacks import PolynomialTermMonitor
from polyloss_lightning.record import read_record


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


@pytest.mark.condition("PolynomialTermMonitor", "logger at a URL")
def test_record_and_figures_of_a_run_at_a_url_go_there(fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "memory://test_loggers"
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
