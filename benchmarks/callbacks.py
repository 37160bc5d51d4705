"""What the callbacks cost per training step, beside the step of a ResNet-18 (batch 8, 32x32, one thread).

    python benchmarks/callbacks.py [--rounds 9] [--steps 300]
    python benchmarks/callbacks.py --epoch-end

Both print what the end of an epoch takes with values per class; the second form prints nothing else.

Their cost does not depend on the network, so it is measured on a small one, where it is not lost in the noise: a
whole `Trainer.fit` with and without them, with a CSVLogger, so that all that Lightning does for what they log, every
50 steps, is included. The runs take turns,
and each cost is the median over rounds of the difference to the bare run of the same round. It is CPU time of one
thread, which other programs on the machine disturb less than they do the clock on the wall.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from polyloss_lightning import Poly1CrossEntropyLoss
from polyloss_lightning.callbacks import EpsilonScheduler, PolynomialTermMonitor
from polyloss_lightning.schedules import LinearSchedule

BATCH, CLASSES = 8, 100


class Classifier(pl.LightningModule):
    """The least that trains."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.num_classes = CLASSES
        self.loss_fn = Poly1CrossEntropyLoss()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of a batch."""
        loss: torch.Tensor = self.loss_fn(self.net(batch[0]), batch[1])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)


class Stopwatch(pl.Callback):
    """Seconds of CPU time per step, from the start of the run's tenth step to its end."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Start after the warm-up."""
        if batch_idx == 10:
            self.start = time.process_time()

    def on_train_epoch_end(self, trainer, pl_module):
        """Stop."""
        self.per_step = (time.process_time() - self.start) / (trainer.num_training_batches - 10)


def seconds_per_step(net: nn.Module, steps: int, callbacks: list[pl.Callback], classes: int = CLASSES) -> float:
    """Train ``net`` for ``steps`` steps of random data."""
    data = TensorDataset(torch.randn(BATCH, 3, 32, 32), torch.randint(classes, (BATCH,)))
    sampler = [list(range(BATCH))] * steps
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=CSVLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch, *callbacks],  # first, so that its epoch ends before the monitor computes
        )
        trainer.fit(Classifier(net), DataLoader(data, batch_sampler=sampler))
    return watch.per_step


class TimedMonitor(PolynomialTermMonitor):
    """Seconds of CPU time of the last end of a training epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        """Time it."""
        start = time.process_time()
        super().on_train_epoch_end(trainer, pl_module)
        self.seconds = time.process_time() - start


def epoch_ends(rounds: int) -> None:
    """Print the seconds of CPU time of an epoch end for several numbers of classes, with a CSVLogger."""
    print(f"\nend of an epoch with per_class=True\n{'classes':>8}{'epoch end, CPU s':>24}{'(range)':>16}")
    for classes in (100, 1000, 21_841):
        seconds = []
        for _ in range(rounds):
            monitor = TimedMonitor(per_class=True, num_classes=classes, figures=False)
            net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Linear(8, classes))
            seconds_per_step(net, 11, [monitor], classes)
            seconds.append(monitor.seconds)
        span = f"({min(seconds):.3f}-{max(seconds):.3f})"
        print(f"{classes:8}{statistics.median(seconds):24.3f}{span:>16}")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--epoch-end", action="store_true", help="measure only the end of an epoch")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    if arguments.epoch_end:
        epoch_ends(arguments.rounds)
        return

    def scheduler() -> EpsilonScheduler:
        return EpsilonScheduler(LinearSchedule(-1.0, 2.0))

    callbacks = {
        "scheduler": lambda: [scheduler()],
        "monitor": lambda: [PolynomialTermMonitor()],
        "monitor, per class": lambda: [PolynomialTermMonitor(per_class=True)],
        "scheduler and monitor": lambda: [scheduler(), PolynomialTermMonitor()],
    }
    costs: dict[str, list[float]] = {name: [] for name in callbacks}
    resnet = []
    for _ in range(arguments.rounds):
        small = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES))
        bare = seconds_per_step(small, arguments.steps, [])
        for name, make in callbacks.items():
            costs[name].append(seconds_per_step(small, arguments.steps, make()) - bare)
        resnet.append(seconds_per_step(resnet18(num_classes=CLASSES), 30, []))
    step = statistics.median(resnet)
    print(f"resnet18 step, batch {BATCH}, 32x32, one thread: {1e3 * step:.1f} ms (torch {torch.__version__})")
    print(f"{'callbacks':24}{'us a step':>10}{'(range)':>14}{'share of the step':>20}")
    for name, seconds in costs.items():
        cost, low, high = statistics.median(seconds), min(seconds), max(seconds)
        print(f"{name:24}{1e6 * cost:10.0f}{f'({1e6 * low:.0f}-{1e6 * high:.0f})':>14}{cost / step:20.2%}")
    epoch_ends(arguments.rounds)


if __name__ == "__main__":
    main()
