"""What a run of a search takes beyond the bare fit.

    python benchmarks/search_overhead.py

The fits are those of the long-tailed digits with the shipped config. Of each pair, the first is `Trainer.fit` alone,
with module, data and Trainer already built. The second is a run of `polyloss search`: it also builds them from the
config, records all metrics, computes those of the test part, and writes everything into the study.
"""

import statistics
import tempfile
import time
from pathlib import Path

from polyloss_lightning.cli.search_configs import ConfigObjective, resolve
from polyloss_lightning.search import search
from polyloss_lightning.search.config import with_epsilon

ROUNDS = 3


def main() -> None:
    """Print the median of each, and the difference."""
    config = with_epsilon(resolve(["--config", "digits_longtail"]), 0.0)
    settings = {"epsilon 0": config, "epsilon 2": with_epsilon(config, 2.0)}
    bare, whole = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objective = ConfigObjective(folder, ["data.init_args.seed"])
        objective(config, 0).run(test=True)  # the first run also imports and compiles
        for number in range(ROUNDS):
            for seed in (0, 1):
                fit = objective(config, seed)
                began = time.perf_counter()
                fit.trainer.fit(fit.module, fit.data)
                bare.append(time.perf_counter() - began)
            began = time.perf_counter()
            search(
                objective,
                settings,
                baseline="epsilon 0",
                explore_seeds=1,
                confirm_seeds=2,
                monitor="val/balanced_accuracy",
                study=folder / f"study_{number}",
                write=lambda line: None,
            )
            whole.append((time.perf_counter() - began) / 6)  # 2 runs of the first phase, 4 of the second
    alone, run = statistics.median(bare), statistics.median(whole)
    print(f"bare fit {alone:.2f} s, run of a search {run:.2f} s: {run / alone - 1:+.1%}")


if __name__ == "__main__":
    main()
