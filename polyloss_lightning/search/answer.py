"""The answer of a search: a table and a sentence."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polyloss_lightning._class_groups import head_middle_tail
from polyloss_lightning.search.comparison import Comparison, Difference, Picks, compare
from polyloss_lightning.search.plan import Pair, Phase, Plan
from polyloss_lightning.search.plan_store import look_number, was_looked_at
from polyloss_lightning.search.run_queue import RunQueue, Runs, outcome_of, value_of
from polyloss_lightning.search.sentence import Unit, seeds_in_words, sentence

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        setting: name of the setting.
        phase: the phase whose runs it summarizes.
        values: the value of every completed run.
        seeds: their seeds.
        difference: gain of the pick over this setting, if it was confirmed against it.
        recalls: mean recall of head, middle and tail classes, if known.
        calibration_error: mean expected calibration error; NaN if it is not known.
    """

    setting: str
    phase: Phase
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    difference: Difference | None
    recalls: dict[str, float]
    calibration_error: float

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float:
        """Standard deviation of the values; NaN for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Answer:
    """What a search found.

    Attributes:
        sentence: the outcome in words.
        notes: what else has to be known about it.
        rows: the table.
        comparison: the outcome in numbers; None if the explore phase is not complete.
        unit: how differences are written.
        failures: the error of each run that failed.
    """

    sentence: str
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    comparison: Comparison | None
    unit: Unit
    failures: dict[Pair, str]

    @property
    def pick(self) -> str | None:
        """Name of the setting that was picked; None if there is none."""
        return None if self.comparison is None else self.comparison.picks.pick


def answer(study: Study, plan: Plan, confirm_seeds: int, *, register_look: bool) -> Answer:
    """Read the answer from a study.

    Args:
        study: the study.
        plan: its plan.
        confirm_seeds: its number of confirm seeds.
        register_look: remember that the confirm seeds were looked at; the next look at more of them will have half
            the error level. Otherwise nothing is compared while runs are missing, unless they were looked at before.
    """
    queue = RunQueue(study, plan, confirm_seeds)
    runs = queue.state()
    explored = Runs(plan.explore, runs.done, runs.running, runs.waiting, runs.failed)
    picks = queue.picks(explored)
    metrics = sorted({outcome_of(trial)["metric"] for pair, trial in runs.done.items() if pair.phase == "confirm"})
    explore_metrics = sorted({outcome_of(t)["metric"] for pair, t in runs.done.items() if pair.phase == "explore"})
    metric = (metrics or explore_metrics or [plan.monitor or ""])[0]
    unit = Unit.of(metric, [value_of(trial) for trial in runs.done.values()])
    comparison = None
    if picks is None:
        done = len(explored.planned) - sum(pair not in runs.done for pair in plan.explore)
        text = f"Not finished: {done} of {len(plan.explore)} runs of the explore phase are complete."
    else:
        complete = sum(pair.phase == "confirm" for pair in runs.done)
        if register_look or runs.settled or was_looked_at(study, complete):
            look = look_number(study, complete, register=register_look and complete > 0)
            comparison = _compare(runs, plan, picks, look)
            text = sentence(comparison, plan, unit)
        else:  # to state a result now would be another look
            planned = len(runs.planned) - len(plan.explore)
            text = f"Not finished: {picks.pick} is picked; {complete} of {planned} runs on fresh seeds are complete."
    notes = [
        *plan.notes,
        *_notes_about_data(metric),
        *([] if comparison is None else _notes_about_comparison(comparison, plan, confirm_seeds)),
        *([] if comparison is None else _better_controls(comparison, plan, unit)),
        *_notes_about_failures(runs),
        *([f"the runs have several metrics: {', '.join(metrics)}"] if len(metrics) > 1 else []),
    ]
    return Answer(text, tuple(notes), _rows(runs, plan, comparison), comparison, unit, dict(runs.failed))


def _compare(runs: Runs, plan: Plan, picks: Picks, look: int) -> Comparison:
    return compare(
        runs.results(),
        baseline=plan.baseline,
        explore_seeds=range(plan.explore_seeds),
        controls=plan.controls,
        mode=runs.mode(plan),
        look=look,
        picks=picks,
    )


def _notes_about_data(metric: str) -> list[str]:
    if metric.startswith(("val", "train")):
        return [f"{metric} was measured on the validation data, which also selected the checkpoint and the setting"]
    return []


def _notes_about_failures(runs: Runs) -> list[str]:
    if runs.failed:
        return ["failed runs are not tried again in this study; if their cause is removed, choose another study"]
    return []


def _notes_about_comparison(comparison: Comparison, plan: Plan, confirm_seeds: int) -> list[str]:
    notes = []
    picks = comparison.picks
    if comparison.look > 1:
        notes.append(
            f"this is look {comparison.look} at the fresh seeds, so the error level of the intervals is "
            f"{100 * comparison.level:.4g} %"
        )
    if picks.failed:
        notes.append(f"not all runs of these settings succeeded, so they cannot be picked: {', '.join(picks.failed)}")
    planned = set(range(plan.explore_seeds, plan.explore_seeds + confirm_seeds))
    for difference in comparison.differences:
        missing = sorted(planned - set(difference.seeds))
        if missing:
            notes.append(f"the comparison with {difference.against} lacks {seeds_in_words(missing)}")
    if picks.pick is not None and (edge := _edge(plan, picks.pick)):
        notes.append(edge)
    return notes


def _better_controls(comparison: Comparison, plan: Plan, unit: Unit) -> list[str]:
    return [
        f"{plan[d.against].phrase or d.against} is better than {comparison.picks.pick} by {unit.number(-d.mean)} "
        f"({unit.number(-d.high)} to {unit.number(-d.low)}), so this change helps more than epsilon does"
        for d in comparison.differences[1:]
        if d.high < 0 and d.varies
    ]


def _edge(plan: Plan, name: str) -> str:
    pick = plan[name]
    positions = [s.position for s in plan.settings if s.grid == pick.grid and s.position is not None]
    if pick.position is None or len(set(positions)) < 3 or min(positions) < pick.position < max(positions):
        return ""
    where = "smallest" if pick.position == min(positions) else "largest"
    if pick.grid == "epsilon" and pick.position <= -1:
        return f"{name} is the {where} epsilon that was tried; below -1 the gradient of confident samples is reversed"
    beyond = "smaller" if where == "smallest" else "larger"
    return f"{name} is the {where} {pick.grid} that was tried; a {beyond} one may do better"


def _rows(runs: Runs, plan: Plan, comparison: Comparison | None) -> tuple[Row, ...]:
    differences = {} if comparison is None else {d.against: d for d in comparison.differences}
    grouped: defaultdict[tuple[Phase, str], list[tuple[int, FrozenTrial]]] = defaultdict(list)
    for pair, trial in sorted(runs.done.items(), key=lambda item: item[0].seed):
        grouped[pair.phase, pair.setting].append((pair.seed, trial))
    rows = []
    phases: Sequence[Phase] = ("explore", "confirm")
    for phase in phases:
        for setting in plan.settings:
            trials = grouped.get((phase, setting.name))
            if trials:
                rows.append(
                    Row(
                        setting.name,
                        phase,
                        tuple(value_of(trial) for _, trial in trials),
                        tuple(seed for seed, _ in trials),
                        differences.get(setting.name) if phase == "confirm" else None,
                        _mean_recalls([trial for _, trial in trials]),
                        _mean_calibration_error([trial for _, trial in trials]),
                    )
                )
    return tuple(rows)


def _mean_recalls(trials: list[FrozenTrial]) -> dict[str, float]:
    """Return the recall of head, middle and tail, averaged over their classes and then over runs."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for trial in trials:
        attributes = outcome_of(trial)
        part = attributes["metric"].partition("/")[0]
        for group, classes in head_middle_tail(attributes["class_counts"]).items():
            recalls = [attributes["metrics"].get(f"{part}/recall_class/{k}", math.nan) for k in classes]
            known = [recall for recall in recalls if math.isfinite(recall)]
            if known:
                found[group].append(statistics.fmean(known))
    return {group: statistics.fmean(values) for group, values in found.items()}


def _mean_calibration_error(trials: list[FrozenTrial]) -> float:
    found = []
    for attributes in map(outcome_of, trials):
        part = attributes["metric"].partition("/")[0]
        found.append(attributes["metrics"].get(f"{part}/calibration_error", math.nan))
    return statistics.fmean(found)
