"""How time and memory grow with the number of classes and with the batch: torch, the usual formulation, ours, the head.

    python benchmarks/growth.py                  # prints two Markdown tables and draws growth.png; 5 minutes
    python benchmarks/growth.py --figure FILE
    python benchmarks/growth.py --quick          # small sizes, few rounds: a check, no measurement
    python benchmarks/growth.py --device cuda

Each loss is that of a linear layer from D features to C classes, for a batch of N samples with class indices; time and
memory are those of forward and backward of layer and loss together, on one thread. "head" is
`Poly1LinearCrossEntropyLoss`; the others get the logits of the layer. The peak does not count the gradients of the
features and of the weight, which remain afterwards. It is given in units of the logits, of which torch needs three.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import measure
import torch
import torch.nn.functional as F
from cases import EPSILON, usual_cross_entropy
from torch import Tensor

import polyloss_lightning as poly

BUDGET, QUICK_BUDGET = 3.0, 0.01  # seconds of a comparison
LOSSES = ("torch", "usual", "ours", "head")


class Size(NamedTuple):
    """A linear layer and a batch."""

    batch: int
    features: int
    classes: int

    def __str__(self) -> str:
        return f"[{self.batch}, {self.features}] -> {self.classes}"


# Most time that the head may take over Linear + F.cross_entropy, and most memory, in logits.
MUSTS = {
    Size(4096, 256, 32_000): (1.0, 0.3),
    Size(1024, 512, 21_841): (1.15, 0.5),
    Size(1024, 256, 128_000): (1.0, 0.5),
}
BY_CLASSES = [Size(256, 256, classes) for classes in (10, 100, 1_000, 10_000, 32_000, 128_000)]
BY_BATCH = [Size(batch, 256, 10_000) for batch in (16, 64, 256, 1_024, 4_096)]
QUICK = [Size(8, 4, 10), Size(8, 4, 30)]


class Measured(NamedTuple):
    """Milliseconds, and peak memory in MiB and in units of the logits."""

    ms: float
    peak_mib: float
    peak: float


def prepare(size: Size, device: str) -> tuple[Tensor, dict[str, measure.Loss]]:
    """Return the features and the losses of a size, by name."""
    torch.manual_seed(0)
    features = torch.randn(size.batch, size.features, device=device, requires_grad=True)
    weight = (torch.randn(size.classes, size.features, device=device) / size.features**0.5).requires_grad_()
    target = torch.randint(size.classes, (size.batch,), device=device)
    ours, head = poly.Poly1CrossEntropyLoss(EPSILON), poly.Poly1LinearCrossEntropyLoss(EPSILON)

    def fresh(features: Tensor) -> Tensor:
        weight.grad = None
        return features

    return features, {
        "torch": lambda x: F.cross_entropy(F.linear(fresh(x), weight), target),
        "usual": lambda x: usual_cross_entropy(F.linear(fresh(x), weight), target),
        "ours": lambda x: ours(F.linear(fresh(x), weight), target),
        "head": lambda x: head(fresh(x), weight, target),
    }


def measured(size: Size, device: str, budget: float) -> dict[str, Measured]:
    """Measure all losses of a size."""
    features, losses = prepare(size, device)
    logits = 4 * size.batch * size.classes
    gradients = 4 * size.features * (size.batch + size.classes)
    results = {}
    for name in LOSSES:
        ratio, seconds = measure.run(losses[name], losses["torch"], features, budget)
        peak = measure.peak(losses[name], features) * features.numel() * 4 - gradients
        results[name] = Measured(1e3 * ratio * seconds, peak / 2**20, peak / logits)
    return results


def verdict(value: float, must: float) -> str:
    """Return the value with what it must be."""
    return f"{value:.2f} ({'met' if value <= must else 'missed'}: {must:g})"


def growth_table(results: dict[Size, dict[str, Measured]]) -> str:
    """Return a Markdown table of milliseconds and MiB."""
    head = " | ".join(f"{name}, ms" for name in LOSSES) + " | " + " | ".join(f"{name}, MiB" for name in LOSSES)
    lines = [f"| layer and batch | {head} |", "|---" * (1 + 2 * len(LOSSES)) + "|"]
    for size, result in results.items():
        cells = [f"{result[name].ms:.2f}" for name in LOSSES] + [f"{result[name].peak_mib:.1f}" for name in LOSSES]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def head_table(results: dict[Size, dict[str, Measured]]) -> str:
    """Return a Markdown table of the head over Linear + F.cross_entropy, with the musts."""
    lines = [
        "| layer and batch | torch, ms | time over torch | peak, logits | peak of torch |",
        "|---|---|---|---|---|",
    ]
    for size, result in results.items():
        time, peak = MUSTS[size]
        head, torchs = result["head"], result["torch"]
        lines.append(
            f"| {size} | {torchs.ms:.0f} | {verdict(head.ms / torchs.ms, time)} | {verdict(head.peak, peak)} | "
            f"{torchs.peak:.2f} |"
        )
    return "\n".join(lines)


def draw(by_classes: dict[Size, dict[str, Measured]], by_batch: dict[Size, dict[str, Measured]], path: Path) -> None:
    """Draw time and peak memory against the number of classes and against the batch."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharex="col", layout="constrained")
    names = {"torch": "torch", "usual": "usual formulation", "ours": "Poly1CrossEntropyLoss", "head": "linear head"}
    for column, (results, xs, label) in enumerate(
        (
            (by_classes, [size.classes for size in by_classes], "number of classes (256 samples)"),
            (by_batch, [size.batch for size in by_batch], "samples per batch (10,000 classes)"),
        )
    ):
        for name in LOSSES:
            options = {"marker": "o", "markersize": 4, "label": names[name]}
            axes[0, column].loglog(xs, [result[name].ms for result in results.values()], **options)
            axes[1, column].loglog(xs, [max(result[name].peak_mib, 1e-3) for result in results.values()], **options)
        axes[1, column].set_xlabel(label)
    axes[0, 0].set_ylabel("forward and backward, ms")
    axes[1, 0].set_ylabel("peak memory, MiB")
    axes[0, 0].legend(frameon=False)
    for each in axes.flat:
        each.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, default=Path("growth.png"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget = QUICK_BUDGET if options.quick else BUDGET

    def all_of(sizes: list[Size]) -> dict[Size, dict[str, Measured]]:
        return {size: measured(size, options.device, budget) for size in sizes}

    if not options.quick:
        print(head_table(all_of(list(MUSTS))), flush=True)
    by_classes, by_batch = (all_of(QUICK if options.quick else sizes) for sizes in (BY_CLASSES, BY_BATCH))
    print()
    print(growth_table({**by_classes, **by_batch}))
    draw(by_classes, by_batch, options.figure)
    print(f"\nfigure: {options.figure}")


if __name__ == "__main__":
    main()
