"""The end of a run of the command: with two processes, without metrics, with data modules of one's own."""

import subprocess
import sys

import pytest

from polyloss_lightning.cli import main

SMALL = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"]
DATA = """
import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Own(LightningDataModule):
    class_names = np.array(["cat", "dog", "fox"])
    class_counts = {kind}
    num_classes, in_channels = 3, 1

    def train_dataloader(self):
        torch.manual_seed(0)
        return DataLoader(TensorDataset(torch.randn(12, 1, 8, 8), torch.arange(12) % 3), batch_size=4)

    val_dataloader = train_dataloader
"""


def fit(*arguments):
    main(["fit", "--config", "digits_longtail", *arguments])


@pytest.mark.slow
def test_two_processes_end_with_the_tables_and_paths_once(tmp_path):
    command = [sys.executable, "-m", "polyloss_lightning", "fit", "--config", "digits_longtail", *SMALL]
    ddp = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    result = subprocess.run([*command, *ddp], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("classes: ") >= 1
    assert result.stdout.count("next:") == 1
    (written,) = tmp_path.rglob("classes.csv")
    assert f"classes: {written.relative_to(tmp_path)}" in result.stdout


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
def test_without_validation_the_paths_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fit(*SMALL, "--trainer.limit_val_batches", "0")
    printed = capsys.readouterr().out
    assert "figures: " in printed
    assert "CSVLogger: " in printed


@pytest.mark.parametrize("counts", ["torch.tensor([4, 4, 4])", "{0: 4, 2: 4}"])
def test_counts_and_names_of_any_kind_are_shown(tmp_path, monkeypatch, capsys, counts):
    (tmp_path / "own_data.py").write_text(DATA.replace("{kind}", counts), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_data", raising=False)
    fit("--data", "own_data.Own", *SMALL)
    printed = capsys.readouterr().out
    assert "dog" in printed
    assert "classes: " in printed
