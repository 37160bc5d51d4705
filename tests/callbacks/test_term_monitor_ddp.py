"""Two gloo processes: every logged value is that of one process on the union of the data."""

import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import sys
import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from polyloss_lightning import Poly1CrossEntropyLoss, PolynomialTermMonitor

folder = sys.argv[1]


class Module(pl.LightningModule):
    def __init__(self, empty=()):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)
        self.num_classes = 3
        self.loss_fn = Poly1CrossEntropyLoss(1.0, weight=[0.2, 1.0, 4.0])
        self.unused = Poly1CrossEntropyLoss()  # called on rank 1 alone
        self.empty = empty
        self.calls = {"train": [], "val": []}

    def train_dataloader(self):
        torch.manual_seed(1 + self.global_rank)
        target = torch.randint(3, (16,))
        target[::3] = -100
        return DataLoader(TensorDataset(torch.randn(16, 4), target), batch_size=4)

    val_dataloader = train_dataloader

    def step(self, batch, stage):
        input, target = batch
        if stage in self.empty and self.global_rank == 1:
            target = torch.full_like(target, -100)
        logits = self.net(input)
        self.calls[stage].append((logits.detach().clone(), target))
        if self.global_rank == 1:
            self.unused(logits.detach(), target)
        return self.loss_fn(logits, target)

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def done(self, name):
        metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        torch.save((self.calls, metrics), f"{folder}/{name}-{self.global_rank}.pt")


class Finish(pl.Callback):
    def __init__(self, name):
        self.name = name

    def on_train_batch_end(self, trainer, pl_module, *args):
        if self.name == "whole" and trainer.global_step == 2:
            trainer.save_checkpoint(f"{folder}/middle.ckpt")

    def on_train_end(self, trainer, pl_module):
        pl_module.done(self.name)

    def on_validation_end(self, trainer, pl_module):
        if trainer.state.fn == "validate":
            pl_module.done(self.name)


def trainer(name, **options):
    return pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork",
        callbacks=[PolynomialTermMonitor(per_class=True), Finish(name)],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=1,
        use_distributed_sampler=False, log_every_n_steps=1, num_sanity_val_steps=0, default_root_dir=folder, **options,
    )


if __name__ == "__main__":
    trainer("whole").fit(Module())
    trainer("resumed", limit_val_batches=0).fit(Module(), ckpt_path=f"{folder}/middle.ckpt", weights_only=True)
    trainer("empty").validate(Module(empty=("val",)), verbose=False)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr

    def load(name):
        calls, metrics = zip(*(torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1)), strict=True)
        return calls, metrics

    return load


@pytest.mark.condition("PolynomialTermMonitor", "DDP, two processes")
def test_values_are_those_of_one_process_on_all_data(runs, loss_of):
    (zero, one), metrics = runs("whole")
    assert metrics[0] == metrics[1]
    for stage in ("train", "val"):
        assert metrics[0][f"{stage}/poly/loss_fn/loss"] == pytest.approx(loss_of(zero[stage] + one[stage]), rel=1e-5)
    last = loss_of([zero["train"][-1], one["train"][-1]])
    assert metrics[0]["train/poly/loss_fn/loss_step"] == pytest.approx(last, rel=1e-5)


def test_a_loss_that_one_process_alone_calls_is_logged_by_all(runs, loss_of):
    (_, one), metrics = runs("whole")
    expected = loss_of(one["train"], weight=(1.0, 1.0, 1.0))
    assert metrics[0]["train/poly/unused/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.condition("PolynomialTermMonitor", "DDP, resume in the middle of an epoch")
def test_an_epoch_resumed_in_the_middle_is_whole(runs, loss_of):
    before, _ = runs("whole")
    after, metrics = runs("resumed")
    calls = [call for rank in (0, 1) for call in before[rank]["train"][:2] + after[rank]["train"]]
    assert len(calls) == 8
    assert metrics[0]["train/poly/loss_fn/loss"] == pytest.approx(loss_of(calls), rel=1e-5)


def test_a_process_without_a_target_adds_nothing(runs, loss_of):
    (zero, one), metrics = runs("empty")
    assert all((target == -100).all() for _, target in one["val"])
    assert metrics[0] == metrics[1]
    assert metrics[0]["val/poly/loss_fn/loss"] == pytest.approx(loss_of(zero["val"]), rel=1e-5)
