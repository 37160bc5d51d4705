import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys, warnings  # a script, forked in a process of its own: forking the threads of a test run may hang
import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from polyloss_lightning.callbacks import EpsilonScheduler, PolyLossOverride
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.schedules import LinearSchedule

warnings.simplefilter("ignore")


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.loss_fn, self.seen = nn.Linear(4, 3), Poly1CrossEntropyLoss(), []

    def training_step(self, batch, batch_idx):
        self.seen.append(self.loss_fn.epsilon)
        return self.loss_fn(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Report(pl.Callback):
    def on_train_end(self, trainer, module):
        result = [module.seen, module.loss_fn.epsilon, trainer.callback_metrics["poly/epsilon"].item()]
        with open(f"{sys.argv[1]}/{trainer.global_rank}.json", "w") as file:
            json.dump(result, file)


data = DataLoader(TensorDataset(torch.randn(22, 4), torch.arange(22) % 3), batch_size=2)
trainer = pl.Trainer(
    accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=2, accumulate_grad_batches=2, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    callbacks=[EpsilonScheduler(LinearSchedule(-1.0, 2.0)), PolyLossOverride(on_nothing="warn"), Report()],
)
module = Module()
warnings.simplefilter("always")
trainer.fit(module, data)
with open(f"{sys.argv[1]}/main.json", "w") as file:
    json.dump([module.loss_fn.epsilon, list(module.state_dict())], file)
"""


@pytest.mark.condition("EpsilonScheduler", "DDP, two processes")
def test_all_ranks_have_the_same_epsilons_which_end_at_the_end(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, tmp_path]
    done = subprocess.run(command, check=True, env=environment, timeout=300, capture_output=True, text=True)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    seen, last, logged = first
    # 22 samples are 11 a rank, 6 batches and 3 steps of two batches an epoch.
    assert seen == [LINE[epoch * 3 + batch // 2] for epoch in range(2) for batch in range(6)]
    assert last == logged == 2.0
    # The module of the main process, where no training took place, has the last epsilon too.
    assert json.loads((tmp_path / "main.json").read_text()) == [2.0, ["net.weight", "net.bias"]]
    assert done.stderr.count("the override of the main process keeps epsilon 1.0") == 1


LINE = [(1 - step / 5) * -1.0 + step / 5 * 2.0 for step in range(6)]
