"""W&B and Comet get the figures and the record of a run, offline."""

import zipfile

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CometLogger, WandbLogger
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning import LossProvider, PolynomialTermMonitor
from polyloss_lightning.record import RECORD_NAME

FIGURES = {"loss_and_gradient", "coefficients", "terms", "first_term_share", "pt_histogram"}


class Classifier(LossProvider, LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        return self.compute_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(logger):
    trainer = Trainer(
        max_epochs=2, logger=logger, callbacks=[PolynomialTermMonitor()], accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(), DataLoader(TensorDataset(torch.randn(16, 4), torch.arange(16) % 3), batch_size=8))


def test_wandb_has_the_figures_as_images_and_the_record_as_an_artifact(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    for kind in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / kind.lower()))
    logger = WandbLogger(offline=True, save_dir=tmp_path, project="poly")
    fit(logger)
    name = logger.experiment.id
    wandb.finish()
    (run,) = tmp_path.glob("wandb/offline-run-*")
    images = {path.name.rpartition("_")[0] for path in (run / "files" / "media" / "images" / "poly").iterdir()}
    assert {image.rpartition("_")[0] for image in images} == FIGURES
    (staged,) = (path for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert len(staged.read_text().splitlines()) == 3
    assert f"poly_terms-{name}".encode() in next(run.glob("*.wandb")).read_bytes()


def test_comet_has_the_figures_and_the_record_as_an_asset(tmp_path, monkeypatch):
    pytest.importorskip("comet_ml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMET_START_ONLINE", "false")  # with online=False, Lightning 2.6 disables the experiment
    logger = CometLogger(offline_directory=str(tmp_path / "offline"), project="poly")
    fit(logger)
    logger.experiment.end()
    (archive,) = (tmp_path / "offline").glob("*.zip")
    with zipfile.ZipFile(archive) as contents:
        messages = contents.read("messages.json").decode()
    assert all(f"poly/{name}" in messages for name in FIGURES)
    assert RECORD_NAME in messages
