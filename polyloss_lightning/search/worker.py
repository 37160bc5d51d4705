"""A worker: takes one run after the other from the study until none is left."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyloss_lightning.search.extra import require
from polyloss_lightning.search.outcome import Objective, Outcome, execute
from polyloss_lightning.search.plan import Pair, Plan
from polyloss_lightning.search.run_queue import RunQueue, Runs, pair_of, this_process
from polyloss_lightning.search.storage import Location, quiet

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

PAUSE = 0.5  # seconds between two looks at the study while other workers do the last runs


@dataclass(frozen=True)
class Job:
    """What a worker needs, picklable if the objective is.

    Attributes:
        objective: trains one setting with one seed.
        plan: what is compared.
        location: where the study is.
        confirm_seeds: number of seeds of the second phase.
        deadline: time after which no run starts (``time.time()``).
        devices_per_run: number of CUDA devices that each worker process sees; None lets it see all.

    Raises:
        ValueError: if ``confirm_seeds`` is below 2.
    """

    objective: Objective
    plan: Plan
    location: Location
    confirm_seeds: int
    deadline: float | None = None
    devices_per_run: int | None = 1

    def __post_init__(self) -> None:
        if self.confirm_seeds < 2:
            raise ValueError(f"`confirm_seeds` must be at least 2, got {self.confirm_seeds}")


def work(
    job: Job, study: Study, *, watch: Callable[[Runs], None] = lambda runs: None, parent: int | None = None
) -> None:
    """Do runs until all are done or have failed.

    Args:
        job: what to do.
        study: the study at the location of the job.
        watch: called with the state of the runs before and after each run.
        parent: number of the process that started this one; the worker ends if it has died.
    """
    queue = RunQueue(study, job.plan, job.confirm_seeds)
    while True:
        runs = queue.update()
        watch(runs)
        late = job.deadline is not None and time.time() >= job.deadline
        if runs.settled or late or (parent is not None and os.getppid() != parent):
            return
        if runs.waiting:
            _do_one(study, _Run(job, queue))
        else:
            time.sleep(PAUSE)


def _do_one(study: Study, run: _Run) -> None:
    try:
        study.optimize(run, n_trials=1, catch=(Exception,))
    except Exception:
        # A worker that was suspended sends no heartbeat, and its run is given to another one. Then Optuna refuses the
        # result, which the other one will have, too.
        if run.number is None or not study.get_trials(deepcopy=False)[run.number].state.is_finished():
            raise


def run_worker(job: Job, parent: int) -> None:
    """Entry point of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one that started this decides
    signal.signal(signal.SIGTERM, _interrupt)
    sys.argv = sys.argv[:1]  # a LightningCLI would read the arguments of the search
    try:
        with quiet():
            work(job, job.location.open(), parent=parent)
    except KeyboardInterrupt:
        sys.exit(0)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process ends by itself


class _Run:
    """Optuna's objective: one run of the queue."""

    def __init__(self, job: Job, queue: RunQueue) -> None:
        self.job = job
        self.queue = queue
        self.number: int | None = None  # of the trial

    def __call__(self, trial: Trial) -> float:
        self.number = trial.number
        pair = pair_of(trial)
        # Another worker may have taken the last run just before, and then Optuna makes up a new one.
        if pair is None or self.queue.is_duplicate(trial):
            raise require("optuna").TrialPruned
        log = self.job.location.folder / "runs" / f"{trial.number:04d} {_file_name(pair)}.log"
        trial.set_user_attr("worker", {**this_process(), "log": str(log)})
        try:
            outcome = self._execute(pair, log)
        except BaseException as error:
            if _is_interrupt(error):
                trial.set_user_attr("interrupted", True)
                raise KeyboardInterrupt from error
            trial.set_user_attr("error", _in_one_line(error))
            if isinstance(error, Exception):
                raise
            raise RuntimeError(str(error)) from error  # Optuna would leave the trial running
        trial.set_user_attr("outcome", asdict(outcome))
        return outcome.value

    def _execute(self, pair: Pair, log: Path) -> Outcome:
        with output_in(log):
            try:
                return execute(self.job.objective, self.job.plan[pair.setting].value, pair, self.job.plan.monitor)
            except BaseException:
                traceback.print_exc()
                raise


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _is_interrupt(error: BaseException) -> bool:
    # Lightning turns a KeyboardInterrupt into a SystemExit.
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)
    )


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]


def _file_name(pair: Pair) -> str:
    allowed = "".join(c if c.isalnum() or c in " ._-+=" else "_" for c in pair.setting)
    return f"{allowed[:50]} seed {pair.seed}"  # a file name may have 255 bytes, and a character up to 4


@contextmanager
def output_in(log: Path) -> Iterator[None]:
    """Write all that this process and its children print to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with log.open("w", encoding="utf-8") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            # The streams of a notebook or a test do not write to the file descriptors.
            sys.stdout = sys.stderr = file
            yield
    finally:
        sys.stdout, sys.stderr = streams
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
