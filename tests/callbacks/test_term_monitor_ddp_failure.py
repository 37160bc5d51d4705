"""One of two gloo processes fails while the other trains on: what it saves then must not wait for the other."""

import os
import subprocess
import sys

import torch

SCRIPT = """
import sys
from datetime import timedelta
import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from polyloss_lightning import Poly1CrossEntropyLoss, PolynomialTermMonitor

folder = sys.argv[1]


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.loss_fn = Poly1CrossEntropyLoss(1.0)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(16, 4), torch.randint(3, (16,))), batch_size=4)

    def training_step(self, batch, batch_idx):
        if batch_idx == 2 and self.global_rank == 1:
            raise RuntimeError("this process alone fails")
        return self.loss_fn(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Save(pl.Callback):
    # Not by trainer.save_checkpoint, which has a barrier of its own once the file is written.
    def on_exception(self, trainer, pl_module, exception):
        checkpoint = trainer._checkpoint_connector.dump_checkpoint()
        torch.save(checkpoint, f"{folder}/{trainer.global_rank}.ckpt")


if __name__ == "__main__":
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy=DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=30)),
        callbacks=[Save(), PolynomialTermMonitor()], logger=False, num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=1,
        use_distributed_sampler=False, default_root_dir=folder,
    )
    trainer.fit(Module())
"""


def test_a_process_that_fails_alone_saves_its_own_sums(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"},
        check=False,
    )
    assert "this process alone fails" in done.stderr
    states = torch.load(tmp_path / "1.ckpt", weights_only=True)["callbacks"]
    (state,) = states.values()
    # Denominators of the two batches of 4 that this process had trained on.
    assert state["train_sums"]["loss_fn"][8] == 8
