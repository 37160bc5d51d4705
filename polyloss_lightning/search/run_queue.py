"""Which runs of a search are done, running, failed or missing; adds the missing ones to the study."""

from __future__ import annotations

import math
import os
import socket
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyloss_lightning.search.comparison import Mode, Picks, Result, pick
from polyloss_lightning.search.extra import require
from polyloss_lightning.search.monitor import mode_of
from polyloss_lightning.search.plan import Pair, Plan

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

MAX_ERRORS, MAX_KILLS = 2, 4  # attempts that raised an error, and attempts whose worker was killed
_START = timedelta(minutes=2)  # more than a worker takes to write its name into the run that it has taken


@dataclass
class Runs:
    """The runs of a study by their state.

    Attributes:
        planned: all runs that are known to be needed.
        done: finished trials.
        running: runs in progress.
        failed: the error of each run that is not tried again.
    """

    planned: list[Pair]
    done: dict[Pair, FrozenTrial] = field(default_factory=dict)
    running: dict[Pair, FrozenTrial] = field(default_factory=dict)
    waiting: set[Pair] = field(default_factory=set)
    failed: dict[Pair, str] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether every planned run is done or has failed."""
        return all(pair in self.done or pair in self.failed for pair in self.planned)

    def mode(self, plan: Plan) -> Mode:
        """Return whether a large or a small value is good."""
        metric = next((outcome_of(trial)["metric"] for trial in self.done.values()), "")
        chosen_here = plan.monitor is None and metric  # the given mode cannot be meant for a metric that nobody named
        if plan.mode is not None and not chosen_here:
            return plan.mode
        return mode_of(metric) if metric else "max"  # a plain number has no name

    def results(self) -> list[Result]:
        """Return setting, seed and value of the planned runs that have ended; NaN if a run failed."""
        rows: list[Result] = []
        for pair in self.planned:
            if pair in self.done:
                rows.append((pair.setting, pair.seed, value_of(self.done[pair])))
            elif pair in self.failed:
                rows.append((pair.setting, pair.seed, math.nan))
        return rows


class RunQueue:
    """Adds the runs of a plan to a study: first all of the explore phase, then those of the confirm phase.

    Any number of processes may do this at the same time. If two of them add the same run, the one with the higher
    number is not executed.

    Args:
        study: the study.
        plan: what is compared.
        confirm_seeds: number of seeds of the second phase.
    """

    def __init__(self, study: Study, plan: Plan, confirm_seeds: int) -> None:
        self.study = study
        self.plan = plan
        self.confirm_seeds = confirm_seeds
        self._picks: Picks | None = None

    def update(self) -> Runs:
        """Give back the runs of dead workers, add the missing runs, and return the state of all."""
        trials = self.study.get_trials(deepcopy=False)
        if self._reclaim(trials):
            trials = self.study.get_trials(deepcopy=False)
        runs = self._sort(trials)
        known = {*runs.done, *runs.failed, *runs.running, *runs.waiting}
        for pair in runs.planned:
            if pair not in known:
                self._enqueue(pair)
                runs.waiting.add(pair)
        return runs

    def state(self) -> Runs:
        """Return the state of all runs without changing anything."""
        return self._sort(self.study.get_trials(deepcopy=False))

    def _sort(self, trials: Sequence[FrozenTrial]) -> Runs:
        by_pair: defaultdict[Pair | None, list[FrozenTrial]] = defaultdict(list)
        for trial in trials:
            by_pair[pair_of(trial)].append(trial)
        runs = _sorted(self.plan.explore, by_pair)
        picks = self.picks(runs)
        if picks is None or picks.pick is None:
            return runs
        names = dict.fromkeys((picks.pick, self.plan.baseline, *picks.controls))
        return _sorted([*self.plan.explore, *self.plan.confirm(list(names), self.confirm_seeds)], by_pair)

    def picks(self, explored: Runs) -> Picks | None:
        """Return what the explore phase decided; None before it has ended. It is decided once."""
        if self._picks is None:
            stored = self.study.user_attrs.get("picks")
            if stored is None and explored.settled:
                results = [row for row in explored.results() if row[1] < self.plan.explore_seeds]
                plan = self.plan
                decided = pick(results, baseline=plan.baseline, controls=plan.controls, mode=explored.mode(plan))
                if plan.baseline in decided.failed:  # nothing to compare with
                    decided = Picks(None, decided.controls, decided.failed)
                stored = {"pick": decided.pick, "controls": decided.controls, "failed": decided.failed}
                self.study.set_user_attr("picks", stored)
            if stored is not None:
                self._picks = Picks(stored["pick"], tuple(stored["controls"]), tuple(stored["failed"]))
        return self._picks

    def is_duplicate(self, trial: Trial) -> bool:
        """Return whether another trial with a lower number, or a finished one, is the same run."""
        states = require("optuna").trial.TrialState
        pair = pair_of(trial)
        for other in self.study.get_trials(deepcopy=False):
            alive = other.state in (states.RUNNING, states.WAITING) and other.number < trial.number
            if other.number != trial.number and (alive or other.state == states.COMPLETE) and pair_of(other) == pair:
                return True
        return False

    def release_running(self) -> int:
        """Give back all runs that are marked as running, and return their number. No worker may be alive."""
        states = require("optuna").trial.TrialState
        running = self.study.get_trials(deepcopy=False, states=(states.RUNNING,))
        for trial in running:
            self.study.tell(trial.number, state=states.FAIL, skip_if_finished=True)
        return len(running)

    def _reclaim(self, trials: Sequence[FrozenTrial]) -> bool:
        """Fail the trials of workers that died on this machine, and those whose heartbeat has stopped on another."""
        optuna = require("optuna")
        states = optuna.trial.TrialState
        running = [trial for trial in trials if trial.state == states.RUNNING]
        workers = [trial.user_attrs.get("worker", {"host": None}) for trial in running]
        for trial, worker in zip(running, workers, strict=True):
            if _is_dead(worker) if worker["host"] is not None else _is_old(trial):
                self.study.tell(trial.number, state=states.FAIL, skip_if_finished=True)
        # A laptop that was closed has no heartbeat either, so only workers elsewhere are judged by it.
        if any(worker["host"] != this_host() for worker in workers):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(self.study)
        return bool(running)

    def _enqueue(self, pair: Pair) -> None:
        names = [setting.name for setting in self.plan.settings]
        self.study.enqueue_trial(
            {"setting": names.index(pair.setting), "seed": pair.seed}, user_attrs=dict(pair._asdict())
        )


def pair_of(trial: FrozenTrial | Trial) -> Pair | None:
    """Return the run that a trial was enqueued for; None if it was not enqueued."""
    attributes = trial.user_attrs
    return Pair(attributes["phase"], attributes["setting"], attributes["seed"]) if "phase" in attributes else None


def _sorted(planned: list[Pair], by_pair: dict[Pair | None, list[FrozenTrial]]) -> Runs:
    states = require("optuna").trial.TrialState
    runs = Runs(planned)
    for pair in planned:
        trials = by_pair.get(pair, [])
        complete = [trial for trial in trials if trial.state == states.COMPLETE]
        running = [trial for trial in trials if trial.state == states.RUNNING]
        ended = [t for t in trials if t.state == states.FAIL and not t.user_attrs.get("interrupted")]
        errors = [trial.user_attrs["error"] for trial in ended if trial.user_attrs.get("error")]
        kills = len(ended) - len(errors)
        if complete:
            runs.done[pair] = complete[0]
        elif running:
            runs.running[pair] = running[0]
        elif any(trial.state == states.WAITING for trial in trials):
            runs.waiting.add(pair)
        elif len(errors) >= MAX_ERRORS:
            runs.failed[pair] = errors[-1]
        elif kills >= MAX_KILLS:
            runs.failed[pair] = f"its worker was killed {kills} times"
    return runs


def value_of(trial: FrozenTrial) -> float:
    """Return the value of a finished trial."""
    if trial.value is None:
        raise ValueError(f"trial {trial.number} has no value")
    return float(trial.value)


def outcome_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a finished run measured: the fields of :class:`~polyloss_lightning.search.outcome.Outcome`."""
    outcome: dict[str, Any] = trial.user_attrs["outcome"]
    return outcome


def this_host() -> str:
    """Return a name for the machine, or for the container with process numbers of its own."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def this_process() -> dict[str, Any]:
    """Return what identifies this process among the workers of a study."""
    return {"host": this_host(), "pid": os.getpid(), "started": _started(os.getpid())}


def _is_dead(worker: Mapping[str, Any]) -> bool:
    """Return whether a worker ran on this machine, and runs no more."""
    if worker["host"] != this_host() or os.name == "nt":  # there, os.kill would send a signal; the heartbeat has to do
        return False
    try:
        os.kill(worker["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    # After a restart of the machine, another process may have the same number.
    return bool(_started(worker["pid"]) != worker.get("started"))


def _started(process: int) -> str:
    """Return the time at which a process started, in ticks since the machine did; empty if this is not Linux."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _is_old(trial: FrozenTrial) -> bool:
    """Return whether a run was taken long ago, by a worker that was stopped before it wrote its name into it."""
    return trial.datetime_start is not None and datetime.now() - trial.datetime_start > _START
