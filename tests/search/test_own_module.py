"""The command with a module and data of the user, in a file of the working folder."""

import sys

import pytest
from lightning.pytorch.loggers import CSVLogger

from polyloss_lightning.callbacks import PolyLossOverride, PolynomialTermMonitor
from polyloss_lightning.cli.search import search
from polyloss_lightning.cli.search_configs import ConfigObjective, resolve
from polyloss_lightning.record import RECORD_NAME
from polyloss_lightning.search import Fit
from polyloss_lightning.search.config import with_epsilon
from polyloss_lightning.search.outcome import execute
from polyloss_lightning.search.plan import Pair

CODE = """
import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

inputs = torch.linspace(-1, 1, 24)[:, None]
TARGETS = (inputs[:, 0] > 0).long()


class Warmup(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        return [0.1 for _ in self.base_lrs]


class Module(pl.LightningModule):
    def __init__(self, warmup: bool = False):
        super().__init__()
        self.warmup = warmup
        self.layer = torch.nn.Linear(1, 2)

    def training_step(self, batch, batch_idx):
        self.training_loss = F.cross_entropy(self.layer(batch[0]), batch[1])
        return self.training_loss

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self.layer(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self.layer(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return ([optimizer], [Warmup(optimizer)]) if self.warmup else optimizer


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(inputs, TARGETS), batch_size=24)

    val_dataloader = test_dataloader = train_dataloader
"""
ARGUMENTS = ["--model", "own.Module", "--data", "own.Data", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
TRAINER = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_progress_bar": False}


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["polyloss"])
    yield
    sys.modules.pop("own", None)


def test_epsilon_reaches_a_module_with_a_loss_of_torch(tmp_path):
    objective, config = ConfigObjective(tmp_path, []), resolve(ARGUMENTS)
    losses = []
    for epsilon in (0.0, 2.0):
        fit = objective(with_epsilon(config, epsilon), 0)
        pt = fit.module.layer(fit.data.train_dataloader().dataset.tensors[0]).softmax(1)
        pt = pt[range(24), fit.data.train_dataloader().dataset.tensors[1]]
        expected = (-pt.log() + epsilon * (1 - pt)).mean()
        fit.run(test=False)
        losses.append(fit.module.training_loss.item())
        assert losses[-1] == pytest.approx(expected.item())
    assert losses[0] < losses[1]


def test_the_test_part_is_used_in_the_confirm_phase_only(tmp_path):
    objective, config = ConfigObjective(tmp_path, []), resolve(ARGUMENTS)
    explored, confirmed = (
        execute(objective, config, Pair(phase, "0", 0), "val_acc") for phase in ("explore", "confirm")
    )
    assert (explored.metric, confirmed.metric) == ("val_acc", "test_acc")
    assert "test_acc" not in explored.metrics


def test_a_function_may_build_module_loaders_and_trainer():
    import lightning.pytorch as pl
    import own

    def objective(value, seed):
        loader = own.Data().train_dataloader()
        trainer = pl.Trainer(**TRAINER, enable_checkpointing=False, enable_model_summary=False)
        return Fit(own.Module(), {"train": loader, "val": loader, "test": loader}, trainer)

    outcome = execute(objective, None, Pair("confirm", "0", 0), "val_acc")
    assert outcome.metric == "test_acc"
    assert outcome.history["val_acc"] == [pytest.approx(outcome.value, abs=1e-4)]  # all parts are the same


def test_class_counts_may_be_a_mapping(tmp_path):
    import lightning.pytorch as pl
    import own

    data = own.Data()
    data.class_counts = {1: 5, 0: 7}
    trainer = pl.Trainer(**TRAINER, enable_checkpointing=False, enable_model_summary=False)
    assert Fit(own.Module(), data, trainer).run(test=False).class_counts == [7.0, 5.0]


@pytest.mark.parametrize("logger", [False, CSVLogger])
def test_a_monitor_in_python_draws_no_figures_and_needs_a_logger_for_its_record(tmp_path, logger):
    import lightning.pytorch as pl
    import own

    callbacks = [PolyLossOverride(), PolynomialTermMonitor(stages=["train"])]
    options = {**TRAINER, "logger": logger and logger(tmp_path), "default_root_dir": tmp_path}
    trainer = pl.Trainer(**options, callbacks=callbacks, enable_checkpointing=False, enable_model_summary=False)
    Fit(own.Module(), own.Data(), trainer).run(test=False)
    assert len(list(tmp_path.rglob(RECORD_NAME))) == bool(logger)
    assert not list(tmp_path.rglob("*.png"))


def test_data_without_a_seed_and_a_module_without_a_loss_are_mentioned(capsys):
    search([*ARGUMENTS, "--dry_run"])
    output = capsys.readouterr().out
    assert "the split is fixed and the interval covers the randomness of training only" in output
    assert "the settings use PolyLossOverride" in output


def test_a_scheduler_that_cannot_be_scaled_is_refused_before_the_first_run(tmp_path):
    arguments = [*ARGUMENTS, "--model.warmup", "true", "--workers", "1"]
    with pytest.raises(SystemExit, match="polyloss search: the learning rates of Warmup cannot be scaled"):
        search(arguments)
    assert not (tmp_path / "polyloss_search").exists()
