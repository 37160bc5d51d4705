"""Whether a long run with all callbacks keeps its memory and its speed.

    python benchmarks/soak.py [--steps 20000]

A small network trains for many steps: once with monitor, scheduler and override, and once without (control), each in
a process of its own. For each tenth of the run it prints the resident memory at its end, and the median seconds of a
step. Linux only.
"""

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning import EpsilonScheduler, Poly1CrossEntropyLoss, PolyLossOverride, PolynomialTermMonitor
from polyloss_lightning.schedules import LinearSchedule

BATCH, CLASSES, EPOCHS = 32, 20, 20


class Classifier(pl.LightningModule):
    """A linear classifier with a loss of this package and one of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(32, CLASSES)
        self.num_classes = CLASSES
        self.loss_fn = Poly1CrossEntropyLoss()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The sum of both losses."""
        logits = self.net(batch[0])
        loss: torch.Tensor = self.loss_fn(logits, batch[1]) + nn.functional.cross_entropy(logits, batch[1])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), lr=1e-2)


class Recorder(pl.Callback):
    """Memory in MiB and median microseconds of a step for each tenth of the run."""

    def __init__(self, steps: int) -> None:
        self.tenth = max(1, steps // 10)
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Start."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Stop, and print a line at the end of a tenth."""
        self.seconds.append(time.perf_counter() - self.start)
        if len(self.seconds) == self.tenth:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            print(f"{memory:.1f} {1e6 * statistics.median(self.seconds):.0f}", flush=True)
            self.seconds = []


def train(steps: int, callbacks: list[pl.Callback]) -> None:
    """Train for ``steps`` steps in 20 epochs."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    size = BATCH * max(1, steps // EPOCHS)
    data = TensorDataset(torch.randn(size, 32), torch.randint(CLASSES, (size,)))
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            logger=CSVLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*callbacks, Recorder(steps)],
        )
        trainer.fit(Classifier(), DataLoader(data, batch_size=BATCH))


def main() -> None:
    """Run both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--only", choices=["callbacks", "control"], help="train in this process, and print raw numbers")
    arguments = parser.parse_args()
    if arguments.only:
        ours = [
            PolynomialTermMonitor(per_class=True, figures=False),
            EpsilonScheduler(LinearSchedule(-1.0, 2.0)),
            PolyLossOverride(),
        ]
        train(arguments.steps, ours if arguments.only == "callbacks" else [])
        return
    tables = {}
    for kind in ("callbacks", "control"):
        command = [sys.executable, __file__, "--only", kind, "--steps", str(arguments.steps)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        tables[kind] = [tuple(map(float, line.split())) for line in done.stdout.splitlines() if line[:1].isdigit()]
    print(f"{arguments.steps} steps of a linear classifier, batch {BATCH} (torch {torch.__version__})")
    print(f"{'':10}{'memory, MiB':>24}{'median step, us':>24}")
    print(f"{'tenth':10}{'callbacks':>14}{'control':>10}{'callbacks':>14}{'control':>10}")
    for tenth, (ours, control) in enumerate(zip(tables["callbacks"], tables["control"], strict=True), start=1):
        print(f"{tenth:<10}{ours[0]:14.1f}{control[0]:10.1f}{ours[1]:14.0f}{control[1]:10.0f}")


if __name__ == "__main__":
    main()
