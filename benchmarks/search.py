"""How long the default search on the digits takes, and what a run of it costs beyond the bare fit.

python benchmarks/search.py
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from polyloss_lightning.cli.search_configs import ConfigObjective, resolve
from polyloss_lightning.search import search
from polyloss_lightning.search.config import with_epsilon
from polyloss_lightning.search.progress import duration

ROUNDS = 3


def overhead(folder: Path) -> tuple[float, float]:
    """Return the seconds of a bare ``Trainer.fit`` and of a run of a search, each the median of a few, in turns."""
    config = with_epsilon(resolve(["--config", "digits_longtail"]), 0.0)
    objective = ConfigObjective(folder, ["data.init_args.seed"])
    bare, whole = [], []
    for seed in range(ROUNDS):
        fit = objective(config, seed)
        began = time.perf_counter()
        fit.trainer.fit(fit.module, fit.data)
        bare.append(time.perf_counter() - began)
        began = time.perf_counter()
        search(
            objective,
            {"epsilon 0": config, "epsilon 2": with_epsilon(config, 2.0)},
            baseline="epsilon 0",
            explore_seeds=1,
            confirm_seeds=2,
            monitor="val/balanced_accuracy",
            study=folder / f"study_{seed}",
            write=lambda line: None,
        )
        whole.append((time.perf_counter() - began) / 6)  # 2 runs of the first phase, 4 of the second
    return statistics.median(bare), statistics.median(whole)


def main() -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as folder:
        bare, whole = overhead(Path(folder))
        print(
            f"bare fit {bare:.2f} s, run of a search {whole:.2f} s with its part of the test: {whole / bare - 1:+.1%}"
        )
        began = time.perf_counter()
        command = [sys.executable, "-m", "polyloss_lightning", "search", "--config", "digits_longtail"]
        subprocess.run(command, check=True, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})
        print(f"the default search on the digits: {duration(time.perf_counter() - began)} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
