"""Does epsilon change how well the predicted probabilities are calibrated? Handwritten digits, several seeds.

    python benchmarks/calibration.py [SEEDS]

Trains the SmallCNN of the shipped configs with three epsilons, on a long-tailed and on a balanced training part, for
about 360 steps. The seed determines the parts, the rare classes, the weights and the batches. It prints means over the
seeds for the test part, and 95 percent intervals (Student's t) of the differences from epsilon 0 for the same seed.
"""

import functools
import sys
import warnings

import torch
from lightning.pytorch import Trainer, seed_everything

from polyloss_lightning.data import DigitsDataModule
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.models import ImageClassifier, SmallCNN
from polyloss_lightning.search.intervals import paired_interval

EPSILONS = (-1.0, 0.0, 2.0)
PARTS = ((50.0, 40), (1.0, 10))  # imbalance, epochs
METRICS = ("calibration_error", "confidence", "balanced_accuracy", "cross_entropy")


def trained(epsilon: float, imbalance: float, seed: int, epochs: int) -> dict[str, float]:
    """Train once, and return the metrics of the test part."""
    seed_everything(seed, verbose=False)
    data = DigitsDataModule(imbalance=imbalance, seed=seed, batch_size=32)
    optimizer = functools.partial(torch.optim.AdamW, lr=3e-3)
    model = ImageClassifier(SmallCNN(), 10, Poly1CrossEntropyLoss(epsilon), optimizer)
    trainer = Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, data)
    (metrics,) = trainer.test(model, data, verbose=False)
    counts, probabilities, _ = model.class_results["test"]["reliability"]
    metrics["test/confidence"] = float(probabilities.sum() / counts.sum())
    return {name: metrics[f"test/{name}"] for name in METRICS}


def main(seeds: int = 6) -> None:
    """Print one table per training part."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for imbalance, epochs in PARTS:
        found = {epsilon: [trained(epsilon, imbalance, seed, epochs) for seed in range(seeds)] for epsilon in EPSILONS}
        print(f"\n## {'Long-tailed (50 to 1)' if imbalance > 1 else 'Balanced'}, {epochs} epochs, {seeds} seeds\n")
        print(
            "| epsilon | calibration error (%) | difference from epsilon 0 | mean confidence (%) | "
            "balanced accuracy (%) | cross-entropy |\n|---|---|---|---|---|---|"
        )
        for epsilon, runs in found.items():
            mean = {name: sum(run[name] for run in runs) / seeds for name in METRICS}
            change = [
                100 * (run["calibration_error"] - base["calibration_error"])
                for run, base in zip(runs, found[0.0], strict=True)
            ]
            difference = ""
            if epsilon and seeds > 1:
                difference = "{:+.2f} ({:+.2f} to {:+.2f})".format(*paired_interval(change))
            print(
                f"| {epsilon:g} | {100 * mean['calibration_error']:.2f} | {difference} | "
                f"{100 * mean['confidence']:.1f} | {100 * mean['balanced_accuracy']:.1f} | "
                f"{mean['cross_entropy']:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
