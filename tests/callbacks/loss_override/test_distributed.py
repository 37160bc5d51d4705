"""Two processes by gloo."""

import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import sys, warnings  # a script, forked in a process of its own: forking the threads of a test run may hang
import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from polyloss_lightning import PolyLossOverride

warnings.simplefilter("ignore")


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.criterion = nn.Linear(4, 3), nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        return self.criterion(self.net(batch[0]), batch[1])

    def train_dataloader(self):
        return DataLoader(Subset(data, range(self.global_rank, 24, 2)), batch_size=3)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Report(pl.Callback):
    def on_train_end(self, trainer, module):
        sites = [site for one in trainer.callbacks if isinstance(one, PolyLossOverride) for site in one.call_sites]
        result = [module.state_dict(), [(site.function, site.calls) for site in sites]]
        torch.save(result, f"{sys.argv[1]}/{trainer.global_rank}.pt")


torch.manual_seed(0)
data = TensorDataset(torch.randn(24, 4), torch.arange(24) % 3)
trainer = pl.Trainer(
    accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=2, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    callbacks=[PolyLossOverride(2.0), Report()],
)
torch.manual_seed(0)
trainer.fit(Module())
"""


@pytest.mark.condition("PolyLossOverride", "DDP, two processes")
def test_both_processes_train_with_the_mean_of_their_replaced_losses(tmp_path, by_hand):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, script, tmp_path], check=True, env=environment, timeout=300, capture_output=True)
    (state, sites), (second, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    torch.testing.assert_close(state, second, rtol=0, atol=0)
    assert sites == [("cross_entropy", 8)]
    # One process on the same batches: rank r has samples r, r + 2, ... in batches of three.
    torch.manual_seed(0)
    x, y = torch.randn(24, 4), torch.arange(24) % 3
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(8):
        both = [slice(6 * (step % 4) + rank, 6 * (step % 4) + 6, 2) for rank in range(2)]
        optimizer.zero_grad()
        sum(by_hand(net(x[rows]), y[rows]) / 2 for rows in both).backward()
        optimizer.step()
    torch.testing.assert_close({key.removeprefix("net."): value for key, value in state.items()}, net.state_dict())
