"""What a running search prints: one line per finished run, and how long the rest will take."""

import statistics
from collections.abc import Callable

from polyloss_lightning.search.plan import Pair
from polyloss_lightning.search.run_queue import Runs, outcome_of, value_of


class Progress:
    """Prints one line for each run that has ended since the last call.

    Args:
        total: number of runs of both phases.
        workers: number of runs at the same time.
        write: prints a line.
    """

    def __init__(self, total: int, workers: int, write: Callable[[str], None] = print) -> None:
        self.total = total
        self.workers = workers
        self.write = write
        self._shown: set[Pair] | None = None
        self._estimated = False

    def update(self, runs: Runs) -> None:
        """Print what is new."""
        ended = {**dict.fromkeys(runs.done), **dict.fromkeys(runs.failed)}
        if self._shown is None:  # a study that goes on
            self._shown = set(ended)
            if ended:
                self.write(f"{len(ended)} of {self.total} runs are done already")
        seconds = [float(outcome_of(trial)["seconds"]) for trial in runs.done.values()]
        if seconds and not self._estimated:
            self._estimated = True
            if len(seconds) < self.total:
                whole = duration(statistics.fmean(seconds) * self.total / self.workers)
                self.write(f"about {whole} for all {self.total} runs, {self.workers} at a time")
        for pair in ended:
            if pair in self._shown:
                continue
            self._shown.add(pair)
            if pair in runs.failed:
                result = f"failed: {runs.failed[pair]}"
            else:
                trial = runs.done[pair]
                result = f"{value_of(trial):.4g} in {duration(outcome_of(trial)['seconds'])}"
            left = self.total - len(self._shown)
            time_left = (
                f", {duration(statistics.fmean(seconds) * left / self.workers)} left" if seconds and left else ""
            )
            self.write(
                f"[{len(self._shown)}/{self.total}] {pair.setting}, seed {pair.seed}: {result} "
                f"({len(runs.running)} running, {len(runs.failed)} failed{time_left})"
            )


def duration(seconds: float) -> str:
    """Return a duration in words.

    Example:
        >>> duration(4.21), duration(75), duration(7300)
        ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
