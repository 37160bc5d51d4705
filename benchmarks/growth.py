"""How time and memory grow with the number of classes and with the batch: torch, the usual formulation, ours, the head.

    python benchmarks/growth.py                  # prints two Markdown tables and draws growth.svg; 6 minutes
    python benchmarks/growth.py --figure FILE
    python benchmarks/growth.py --quick          # small sizes: a check, no measurement
    python benchmarks/growth.py --device cuda

Each loss is that of a linear layer from D features to C classes, for a batch of N samples with class indices; time and
memory are those of forward and backward of layer and loss together, on one thread. "head" is
`Poly1LinearCrossEntropyLoss`; the others take the logits of the layer.

The first table judges the head. A ratio is "median [lowest highest]" of five runs that take both in turns; "stock" and
"warm" are the settings of glibc's allocator of benchmarks/losses.py. The peak is in units of the logits. Without the
gradients of features and weight, which remain afterwards, the head holds what the table calls "beside gradients"; torch
computes them after its peak.

The second table and the figure show times with the stock allocator (medians of three runs, or one run from 16 million
logits on), and the peak with all gradients.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import measure
import torch
import torch.nn.functional as F
from cases import EPSILON, usual_cross_entropy
from losses import KEEP_FREED_MEMORY, ON_CUDA, RUNS, STOCK, WARM, Setting, print_table, spread, verdict
from torch import Tensor

import polyloss_lightning as poly

LOSSES = {"torch": "torch", "usual": "usual formulation", "ours": "Poly1CrossEntropyLoss", "head": "linear head"}
RUNS_OF_GROWTH, ONE_RUN = 3, 16_000_000  # logits


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
BY_CLASSES = [Size(512, 256, classes) for classes in (10, 100, 1_000, 10_000, 32_000, 128_000)]
BY_BATCH = [Size(batch, 256, 10_000) for batch in (16, 64, 256, 1_024, 4_096)]
GROWN = tuple(dict.fromkeys(BY_CLASSES + BY_BATCH))
QUICK = [Size(8, 4, 10), Size(8, 4, 30)]


class Measured(NamedTuple):
    """Seconds of each run, and the peak in bytes with the gradients."""

    seconds: list[float]
    peak: float

    @property
    def ms(self) -> float:
        """The median in milliseconds."""
        return 1e3 * statistics.median(self.seconds)


Results = dict[Size, dict[str, Measured]]


def prepare(size: Size, device: str) -> tuple[Tensor, dict[str, measure.Loss]]:
    """Return the features and the losses of a size, by name."""
    torch.manual_seed(0)
    features = torch.randn(size.batch, size.features, device=device, requires_grad=True)
    weight = (torch.randn(size.classes, size.features, device=device) / size.features**0.5).requires_grad_()
    target = torch.randint(size.classes, (size.batch,), device=device)
    ours, head = poly.Poly1CrossEntropyLoss(EPSILON), poly.Poly1LinearCrossEntropyLoss(EPSILON)

    def release(weight: Tensor) -> None:
        weight.grad = None

    weight.register_post_accumulate_grad_hook(release)
    return features, {
        "torch": lambda x: F.cross_entropy(F.linear(x, weight), target),
        "usual": lambda x: usual_cross_entropy(F.linear(x, weight), target),
        "ours": lambda x: ours(F.linear(x, weight), target),
        "head": lambda x: head(x, weight, target),
    }


def measured(size: Size, device: str, names: list[str], runs: int) -> dict[str, Measured]:
    """Measure the losses called ``names``, in turns."""
    features, losses = prepare(size, device)
    peaks = {name: measure.peak(losses[name], features) * features.numel() * 4 for name in names}
    turns = [{name: measure.seconds(losses[name], features) for name in names} for _ in range(runs)]
    return {name: Measured([turn[name] for turn in turns], peaks[name]) for name in names}


def judged(device: str) -> Iterator[tuple[Size, dict[str, Measured]]]:
    """Measure torch and the head for the first table."""
    return ((size, measured(size, device, ["torch", "head"], RUNS)) for size in MUSTS)


def grown(device: str, sizes: Iterable[Size]) -> Iterator[tuple[Size, dict[str, Measured]]]:
    """Measure all losses for the second table and the figure."""
    for size in sizes:
        runs = 1 if size.batch * size.classes >= ONE_RUN else RUNS_OF_GROWTH
        yield size, measured(size, device, list(LOSSES), runs)


def results_of_worker(options: argparse.Namespace, worker: str) -> Results:
    """Measure in a process of its own, because the allocator is set before it starts."""
    file = options.results / f"{worker}.jsonl" if options.results else None
    if file is not None and file.exists():
        printed = file.read_text(encoding="utf-8")
    else:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment |= KEEP_FREED_MEMORY if worker == str(WARM) else {}
        environment.setdefault("KINETO_LOG_LEVEL", "99")  # torch.profiler reports on stderr that it starts and stops
        command = [sys.executable, str(Path(__file__).resolve()), "--device", options.device, "--worker", worker]
        printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(printed, encoding="utf-8")
    rows = [json.loads(line) for line in printed.splitlines()]
    return {Size(*size): {name: Measured(*values) for name, values in losses.items()} for size, losses in rows}


def head_rows(results: dict[Setting, Results]) -> list[list[str]]:
    """Return the rows that judge the head against Linear + F.cross_entropy."""
    rows = []
    for size, (must, must_peak) in MUSTS.items():
        ratios = {}
        for setting, found in results.items():
            head, torchs = found[size]["head"], found[size]["torch"]
            ratios[setting] = [ours / its for ours, its in zip(head.seconds, torchs.seconds, strict=True)]
        logits, gradients = 4 * size.batch * size.classes, 4 * size.features * (size.batch + size.classes)
        first = results[next(iter(results))][size]
        peak, beside = first["head"].peak / logits, (first["head"].peak - gradients) / logits
        rows.append([str(size), f"{first['torch'].ms:.0f}", *map(spread, ratios.values()), f"{must:g}"])
        rows[-1] += [verdict(ratios, (must,)), f"{first['torch'].peak / logits:.2f}", f"{peak:.2f}", f"{beside:.2f}"]
        rows[-1] += [f"{must_peak:g}", "met" if beside <= must_peak else "missed"]
    return rows


def growth_rows(results: Results, sizes: list[Size]) -> list[list[str]]:
    """Return milliseconds and MiB of all losses."""
    rows = []
    for size in sizes:
        found = [results[size][name] for name in LOSSES]
        rows.append([str(size), *[f"{each.ms:.3g}" for each in found], *[f"{each.peak / 2**20:.1f}" for each in found]])
    return rows


def draw(results: Results, by_classes: list[Size], by_batch: list[Size], path: Path) -> None:
    """Draw time and peak memory against the number of classes and against the batch."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), sharex="col", layout="constrained")
    columns = (
        (by_classes, [size.classes for size in by_classes], "classes (512 samples)"),
        (by_batch, [size.batch for size in by_batch], "samples (10,000 classes)"),
    )
    for column, (sizes, xs, label) in enumerate(columns):
        for name, title in LOSSES.items():
            found = [results[size][name] for size in sizes]
            # The head on top of the others, which coincide in part.
            options = {"marker": "o", "markersize": 4, "label": title, "linewidth": 2.5 if name == "head" else 1.2}
            axes[0, column].loglog(xs, [each.ms for each in found], **options)
            axes[1, column].loglog(xs, [each.peak / 2**20 for each in found], **options)
        axes[1, column].set_xlabel(label)
    axes[0, 0].set_ylabel("forward and backward, ms")
    axes[1, 0].set_ylabel("peak memory, MiB")
    axes[0, 0].legend(frameon=False)
    for each in axes.flat:
        each.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.fonttype": "none"}):  # text as text, not as curves
        figure.savefig(path)


def main() -> None:
    """Measure, print and draw, or print what one worker measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, default=Path("growth.svg"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="only small sizes, and one setting")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep what is measured, and reuse it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        found = grown(options.device, GROWN) if options.worker == "growth" else judged(options.device)
        for row in found:
            print(json.dumps(row), flush=True)
        return
    if options.quick:
        by_classes = by_batch = QUICK
        growth = dict(grown(options.device, QUICK))
    else:
        by_classes, by_batch = BY_CLASSES, BY_BATCH
        settings = ON_CUDA if options.device == "cuda" else (STOCK, WARM)
        results = {setting: results_of_worker(options, str(setting)) for setting in settings}
        header = ["layer and batch", "torch, ms", *map(str, settings), "must", "verdict"]
        header += ["peak of torch", "peak", "beside gradients", "must", "verdict"]
        print_table("The head over Linear + F.cross_entropy", header, head_rows(results))
        growth = results_of_worker(options, "growth")
    header = ["layer and batch", *[f"{name}, ms" for name in LOSSES], *[f"{name}, MiB" for name in LOSSES]]
    print_table("Growth", header, growth_rows(growth, list(growth)))
    draw(growth, by_classes, by_batch, options.figure)


if __name__ == "__main__":
    main()
