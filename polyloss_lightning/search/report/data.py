"""What the report shows, read from a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polyloss_lightning.search.answer import Answer, answer
from polyloss_lightning.search.plan import Pair, Plan
from polyloss_lightning.search.plan_store import load_plan
from polyloss_lightning.search.run_queue import RunQueue, outcome_of, value_of

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True)
class Run:
    """One run that has ended.

    Attributes:
        pair: phase, setting and seed.
        value: the number that decides; None if the run failed.
        outcome: the fields of :class:`~polyloss_lightning.search.outcome.Outcome`; empty if the run failed.
        error: why it failed.
    """

    pair: Pair
    value: float | None
    outcome: dict[str, Any]
    error: str = ""


@dataclass(frozen=True)
class Report:
    """What the report shows.

    Attributes:
        name: name of the study.
        plan: what was compared.
        answer: the answer.
        runs: all runs that have ended, in the order of the plan.
        versions: versions of the packages that made the study.
    """

    name: str
    plan: Plan
    answer: Answer
    runs: list[Run]
    versions: dict[str, str]

    def of_setting(self, setting: str, phase: str | None = None) -> list[Run]:
        """Return the completed runs of a setting."""
        return [
            run
            for run in self.runs
            if run.value is not None and run.pair.setting == setting and phase in (None, run.pair.phase)
        ]


def read_report(study: Study) -> Report:
    """Read everything from a study, and change nothing."""
    plan, confirm_seeds = load_plan(study)
    runs = RunQueue(study, plan, confirm_seeds).state()
    ended = [
        Run(pair, value_of(runs.done[pair]), outcome_of(runs.done[pair]))
        if pair in runs.done
        else Run(pair, None, {}, runs.failed[pair])
        for pair in runs.planned
        if pair in runs.done or pair in runs.failed
    ]
    found = answer(study, plan, confirm_seeds, register_look=False)
    return Report(study.study_name, plan, found, ended, study.user_attrs.get("versions", {}))
