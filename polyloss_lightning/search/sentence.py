"""States the outcome of a comparison in one sentence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from polyloss_lightning.search.comparison import Comparison, Difference
from polyloss_lightning.search.plan import Plan

_RATE = re.compile(r"acc|recall|precision|f1|auroc|iou|jaccard|dice")


@dataclass(frozen=True)
class Unit:
    """How differences of a metric are written.

    Attributes:
        metric: the metric's name, such as ``test/balanced_accuracy``; empty for a number without a name.
        percent: whether it is a share that is written in percent.
    """

    metric: str
    percent: bool

    @classmethod
    def of(cls, metric: str, values: Sequence[float]) -> "Unit":
        """Return the unit of a metric with these values."""
        share = bool(_RATE.search(metric)) and all(0 <= value <= 1 for value in values)
        return cls(metric, share)

    @property
    def words(self) -> str:
        """What follows a number: "points of balanced accuracy"."""
        name = self.metric.rpartition("/")[2].replace("_", " ")
        return f"points of {name}" if self.percent else f"of {name}" if name else "in value"

    def number(self, value: float) -> str:
        """Return ``value`` in this unit.

        Example:
            >>> unit = Unit("test/balanced_accuracy", True)
            >>> unit.number(0.0123), unit.words
            ('1.2', 'points of balanced accuracy')
            >>> Unit("", False).number(0.0123)
            '0.0123'
        """
        text = f"{100 * value:.1f}" if self.percent else f"{value:.3g}"
        return text.removeprefix("-") if float(text) == 0 else text

    def interval(self, difference: Difference) -> str:
        """Return the limits of a difference."""
        return f"{self.number(difference.low)} to {self.number(difference.high)}"


def sentence(comparison: Comparison, plan: Plan, unit: Unit) -> str:
    """Return the outcome in one sentence."""
    picks = comparison.picks
    if picks.pick is None:
        return f"No setting can be picked, because runs of these failed or are missing: {', '.join(picks.failed)}."
    picked = f"{_phrase(plan, picks.pick)}, picked on {seeds_in_words(range(plan.explore_seeds))},"
    if comparison.failed_seeds:
        failed = seeds_in_words(comparison.failed_seeds)
        return f"{picked} failed on {failed} of the fresh seeds, so nothing is claimed for it."
    if comparison.failed_controls:
        failed = ", ".join(comparison.failed_controls)
        return f"{picked} is not compared with the controls, because they failed ({failed}), so nothing is claimed."
    if comparison.verdict == "unfinished":
        compared = {difference.against for difference in comparison.differences}
        missing = [name for name in (comparison.baseline, *picks.controls) if name not in compared]
        other = _phrase(plan, missing[0])
        return f"{picked} is not confirmed: fewer than 2 fresh seeds are complete for both it and {other}."
    if comparison.verdict == "no spread":
        same = next(d for d in comparison.differences if d.mean and not d.varies)
        return (
            f"{picked} differs from {_phrase(plan, same.against)} by {unit.number(same.mean)} {unit.words} on each of "
            f"{len(same.seeds)} fresh seeds, so there is no interval, and nothing is claimed. Do the runs depend on "
            "the seed?"
        )
    return _outcome(comparison, plan, unit, picked)


def _outcome(comparison: Comparison, plan: Plan, unit: Unit, picked: str) -> str:
    baseline, *controls = comparison.differences
    confidence = f"{100 * (1 - comparison.level):.4g} % interval"
    fresh = f"on {len(baseline.seeds)} fresh seeds"
    against = _phrase(plan, baseline.against)
    if comparison.verdict == "no difference":
        return f"{picked} against {against}: {_no_gain(baseline, unit, confidence)}."
    if comparison.verdict == "worse":
        loss, low, high = (unit.number(-value) for value in (baseline.mean, baseline.high, baseline.low))
        return f"{picked} is worse than {against} by {loss} {unit.words} {fresh} ({confidence} {low} to {high})."
    gain = unit.number(baseline.mean)
    text = f"{picked} beats {against} by {gain} {unit.words} {fresh} ({confidence} {unit.interval(baseline)})"
    unbeaten = [d for d in controls if d.low <= 0]
    if unbeaten:
        least = min(unbeaten, key=lambda d: d.low)
        if least.high < 0:
            return (
                f"{text}, but {_phrase(plan, least.against)} is better still, by {unit.number(-least.mean)} "
                f"({unit.number(-least.high)} to {unit.number(-least.low)})."
            )
        return (
            f"{text}, but {_phrase(plan, least.against)} may do as well; against it: "
            f"{_no_gain(least, unit, confidence)}."
        )
    also = [f", and {_phrase(plan, d.against)} by {unit.number(d.mean)} ({unit.interval(d)})" for d in controls]
    return f"{text}{''.join(also)}."


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Return a list of seeds in words.

    Example:
        >>> seeds_in_words([0, 1, 2]), seeds_in_words([4]), seeds_in_words([1, 5])
        ('seeds 0 to 2', 'seed 4', 'seeds 1, 5')
    """
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return "seeds " + ", ".join(map(str, seeds))


def _no_gain(difference: Difference, unit: Unit, confidence: str) -> str:
    if not difference.varies:
        return f"no gain detected, because both have the same value on each of {len(difference.seeds)} seeds"
    return (
        f"no gain detected with {len(difference.seeds)} seeds (measured {unit.number(difference.mean)} {unit.words}, "
        f"{confidence} {unit.interval(difference)}): a gain of {unit.number(difference.detectable)} would have been "
        f"detected with 80 % probability; detecting half of it takes {difference.seeds_for_half} seeds"
    )


def _phrase(plan: Plan, name: str) -> str:
    return plan[name].phrase or name
