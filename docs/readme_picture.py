"""Draws the picture of the README: the losses against Pt, and the terms of a loss while epsilon is annealed.

polyloss fit --config digits_longtail
python docs/readme_picture.py LOG_DIR        # the folder of that run's logs; writes docs/static/readme.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from polyloss_lightning.core import polynomial
from polyloss_lightning.plotting import style
from polyloss_lightning.record import read_record

EPSILONS = (0.0, -1.0, 2.0)


def main() -> None:
    """Draw both panels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log_dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "static" / "readme.png")
    options = parser.parse_args()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")

    pt = torch.linspace(0.02, 1, 200, dtype=torch.float64)
    for epsilon, colour in zip(EPSILONS, (style.BLACK, style.BLUE, style.VERMILLION), strict=True):
        label = "cross-entropy" if epsilon == 0 else f"Poly-1, ε = {epsilon:g}"
        left.plot(pt, polynomial.value(pt.log(), (epsilon,)), color=colour, linewidth=2, label=label)
    left.set(xlabel="probability of the target class, $P_t$", ylabel="loss", xlim=(0, 1), ylim=(0, 5))
    left.set_title("$-\\log P_t + ε\\,(1 - P_t)$", fontsize=11)
    left.legend(frameon=False)

    epochs = read_record(options.log_dir).select(stage="train")
    names = [name for name in epochs[0].metrics if name.startswith("term_")]
    labels = {name: f"term {name.removeprefix('term_')}" for name in names} | {"tail": "all later terms"}
    colours = plt.get_cmap("viridis")(torch.linspace(0.15, 0.95, len(labels)).tolist())
    right.stackplot(
        [epoch.epoch for epoch in epochs],
        [[epoch.metrics[name] for epoch in epochs] for name in labels],
        labels=list(labels.values()),
        colors=colours,
    )
    twin = right.twinx()
    twin.plot(
        [e.epoch for e in epochs], [e.epsilon[0] for e in epochs], color=style.GREY, linestyle="--", linewidth=1.8
    )
    twin.set_ylabel("ε (dashed)")
    right.set(xlabel="epoch", ylabel="training loss", xlim=(0, epochs[-1].epoch), ylim=(0, None))
    right.set_title("its terms while ε moves from −1 to 2 (long-tailed digits)", fontsize=11)
    right.legend(frameon=False, loc="upper center")
    for axes in (left, right, twin):
        axes.spines["top"].set_visible(False)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=160)
    print(options.out)


if __name__ == "__main__":
    main()
