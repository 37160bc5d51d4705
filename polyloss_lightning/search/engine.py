"""Runs a search, from the plan to the answer."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyloss_lightning.search.answer import Answer, answer
from polyloss_lightning.search.comparison import Mode
from polyloss_lightning.search.devices import environment_of_worker
from polyloss_lightning.search.monitor import check_monitor, mode_of
from polyloss_lightning.search.outcome import Objective
from polyloss_lightning.search.plan import Plan, Setting
from polyloss_lightning.search.plan_store import keep_plan
from polyloss_lightning.search.progress import Progress
from polyloss_lightning.search.run_queue import RunQueue
from polyloss_lightning.search.storage import Location, quiet, use_driver
from polyloss_lightning.search.worker import PAUSE, Job, run_worker, work

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_MAX_RESTARTS = 20


def search(
    objective: Objective,
    settings: Mapping[str, Any] | Sequence[Setting],
    *,
    baseline: str,
    controls: Sequence[Sequence[str]] = (),
    explore_seeds: int = 3,
    confirm_seeds: int = 10,
    monitor: str | None = None,
    mode: Mode | None = None,
    study: str | os.PathLike[str] = "polyloss_search",
    storage: str | None = None,
    workers: int = 1,
    max_time: float | timedelta | None = None,
    write: Callable[[str], None] = print,
) -> Answer:
    """Find out whether one of several settings helps: explore all of them, then confirm the best on fresh seeds.

    The answer is unbiased: the best setting of the first phase is compared on seeds that did not make it the best. A
    search that was interrupted continues when it is called again, and finished runs are not repeated.

    Args:
        objective: called with the value of a setting and a seed. It trains, and returns the number that decides; or
            all metrics by name; or a :class:`~polyloss_lightning.search.Fit` (module, data and Trainer), which is then
            trained and, in the second phase, tested. The seed should determine everything that is random, including
            the split of the data.
        settings: values by name, or :class:`~polyloss_lightning.search.Setting` objects.
        baseline: name of the setting to improve on.
        controls: groups of names of settings that the pick has to beat too, such as the baseline with other learning
            rates. The best of each group is confirmed.
        explore_seeds: number of seeds of the first phase, in which every setting runs.
        confirm_seeds: number of fresh seeds of the second phase. Increasing it later is another look at the same data,
            for which the error level is halved.
        monitor: the metric that decides, if the objective returns several.
        mode: whether a large or a small value is good; None decides by the name of the metric (``"max"`` for a plain
            number). Without ``monitor``, it applies to a plain number only.
        study: folder of the study; its name identifies the study in ``storage``.
        storage: URL of a database or ``journal:PATH`` for workers on several machines, each of which calls this
            function; None is a file in the folder.
        workers: number of runs at the same time. 1 runs in this process; more need an objective that can be pickled.
        max_time: seconds after which the search stops with what is complete.
        write: prints one line of progress.

    Raises:
        ModuleNotFoundError: if the extra ``search`` is not installed.
        ValueError: if an argument is out of range, the name of ``monitor`` does not show the mode and none is given,
            or the study exists with other settings.

    Example:
        >>> import random, tempfile
        >>> def objective(learning_rate, seed):
        ...     return learning_rate + random.Random(f"{learning_rate} {seed}").gauss(0, 0.1)  # trains a model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = search(
        ...         objective, {"small": 0.1, "large": 1.0}, baseline="small", study=folder, write=lambda line: None
        ...     )
        >>> print(result.sentence)
        large, picked on seeds 0 to 2, beats small by 0.947 in value on 10 fresh seeds (95 % interval 0.849 to 1.04).
    """
    if isinstance(settings, Mapping):
        settings = [Setting(name, value) for name, value in settings.items()]
    if monitor is not None:
        check_monitor(monitor)
        mode = mode or mode_of(monitor)
    plan = Plan(tuple(settings), baseline, tuple(tuple(group) for group in controls), explore_seeds, monitor, mode)
    limit = max_time.total_seconds() if isinstance(max_time, timedelta) else max_time
    return run_search(
        Job(
            objective,
            plan,
            Location(Path(study), storage and use_driver(storage)),
            confirm_seeds,
            None if limit is None else time.time() + limit,
        ),
        workers=workers,
        in_process=workers == 1,
        write=write,
    )


def run_search(
    job: Job,
    *,
    workers: int,
    in_process: bool,
    retry_running: bool = False,
    write: Callable[[str], None] = print,
) -> Answer:
    """Run the search of ``job``, or continue it.

    Args:
        job: what to do.
        workers: number of worker processes.
        in_process: do the runs in this process instead.
        retry_running: first give back all runs that are marked as running. No other worker may be alive.
        write: prints one line of progress.

    Raises:
        ValueError: if an argument is out of range, or the study exists with another plan.
    """
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1, got {workers}")
    with quiet():
        study = job.location.open("minimize" if job.plan.mode == "min" else "maximize")
        job = replace(job, confirm_seeds=keep_plan(study, job.plan, job.confirm_seeds))
        queue = RunQueue(study, job.plan, job.confirm_seeds)
        if retry_running:
            queue.release_running()
        progress = Progress(job.plan.number_of_runs(job.confirm_seeds), workers, write)
        if in_process:
            work(job, study, watch=progress.update)
        else:
            _run_workers(job, queue, progress, workers)
        progress.update(queue.state())
        return answer(study, job.plan, job.confirm_seeds, register_look=True)


def _run_workers(job: Job, queue: RunQueue, progress: Progress, workers: int) -> None:
    context = multiprocessing.get_context("spawn")

    def start(number: int) -> BaseProcess:
        with environment_of_worker(number, job.devices_per_run):
            process = context.Process(target=run_worker, args=(job, os.getpid()), name=f"polyloss worker {number}")
            process.start()
        return process

    processes = [start(number) for number in range(workers)]
    restarts = 0
    try:
        while True:
            ended = {number: process.exitcode for number, process in enumerate(processes) if not process.is_alive()}
            began = time.perf_counter()
            runs = queue.update()
            progress.update(runs)
            seconds = time.perf_counter() - began
            if runs.settled or (job.deadline is not None and time.time() >= job.deadline):
                return
            for number, code in ended.items():
                restarts += 1
                if restarts > _MAX_RESTARTS:
                    raise RuntimeError(f"worker processes ended {restarts} times, the last one with exit code {code}")
                progress.write(f"worker {number} ended with exit code {code}; another one takes its place")
                processes[number] = start(number)
            time.sleep(max(PAUSE, 20 * seconds))  # a database of many runs is slow to read; leave the cores to the runs
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(timeout=10)
            if process.exitcode is None:
                process.kill()
                process.join()
        queue.update()  # gives back the runs that were interrupted
