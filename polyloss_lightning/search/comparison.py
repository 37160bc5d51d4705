"""Explore, then confirm: a comparison of settings that picking the best one does not bias.

The best of several settings looks better than it is on the seeds that made it the best. Therefore the setting is picked
on one group of seeds, and compared with the baseline on others. The second comparison is decided before its runs are
made, so its interval needs no correction for the number of settings.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from polyloss_lightning.search.intervals import detectable_gain, level_of_look, paired_interval, seeds_needed

Result: TypeAlias = tuple[str, int, float]  # setting, seed, value; NaN for a run that failed
Mode: TypeAlias = Literal["max", "min"]
_ROUNDING = 1e-6  # of the values; differences that differ by less are equal up to the rounding of float32

Verdict: TypeAlias = Literal[
    "better", "not better than every control", "no difference", "worse", "no spread", "failed", "unfinished"
]


@dataclass(frozen=True)
class Picks:
    """What the explore seeds decided.

    Attributes:
        pick: the best setting; None if no setting completed all of its runs.
        controls: the best control of each group, all of which the pick must beat.
        failed: settings that cannot be picked because a run failed or is missing.
    """

    pick: str | None
    controls: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """The paired difference between the pick and one other setting; a gain is positive for either mode.

    Attributes:
        against: the other setting.
        seeds: the seeds that both completed.
        values: gain on each of these seeds.
        mean: mean gain.
        low: lower limit of its confidence interval.
        high: upper limit.
        detectable: the true gain that these seeds would have shown with a probability of 80 percent.
        seeds_for_half: number of seeds that would show half of ``detectable``.
    """

    against: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    detectable: float
    seeds_for_half: int

    @property
    def varies(self) -> bool:
        """Whether the gain differs between the seeds. If it does not, the seeds tell nothing about its uncertainty."""
        return self.low < self.high


@dataclass(frozen=True)
class Comparison:
    """The outcome of :func:`compare`.

    Attributes:
        verdict: ``"better"`` if the interval against the baseline and against every control lies above 0;
            ``"no spread"`` if a gain or loss is the same on all seeds, so that it has no interval.
        picks: what the explore seeds decided.
        baseline: name of the baseline.
        differences: the pick against the baseline, then against each control.
        failed_seeds: confirm seeds on which the pick failed.
        failed_controls: controls of groups of which none completed its runs, so that nothing is claimed.
        level: two-sided error level of the intervals.
        look: how often the confirm seeds have been looked at, counting this time.
    """

    verdict: Verdict
    picks: Picks
    baseline: str
    differences: tuple[Difference, ...]
    failed_seeds: tuple[int, ...]
    failed_controls: tuple[str, ...]
    level: float
    look: int


def pick(
    results: Iterable[Result], *, baseline: str, controls: Sequence[Collection[str]] = (), mode: Mode = "max"
) -> Picks:
    """Pick the setting with the best mean, and the best control of each group.

    Args:
        results: ``(setting, seed, value)`` of the explore seeds. The value of a failed run is NaN.
        baseline: the setting that the pick is to be compared with; it cannot be picked itself.
        controls: groups of settings that cannot be picked either; the best of each group is kept.
        mode: whether a large or a small value is good.

    Raises:
        ValueError: if ``mode`` is unknown, a run occurs twice, or the baseline has no results.

    Example:
        >>> results = [("a", 0, 0.5), ("a", 1, 0.6), ("b", 0, 0.7), ("b", 1, 0.6), ("base", 0, 0.8), ("base", 1, 0.8)]
        >>> pick(results, baseline="base").pick
        'b'
    """
    table = as_table(results)
    sign = _sign(mode)
    if baseline not in table:
        raise ValueError(f"`baseline` must be among the settings {sorted(table)}, got {baseline!r}")
    seeds = {seed for values in table.values() for seed in values}
    complete = {
        name: sign * statistics.fmean(values.values())
        for name, values in table.items()
        if set(values) == seeds and all(map(math.isfinite, values.values()))
    }
    others = {baseline, *(name for group in controls for name in group)}
    candidates = [name for name in table if name in complete and name not in others]
    best_controls = [
        max(ready, key=lambda name: complete[name])
        for group in controls
        if (ready := [name for name in group if name in complete])
    ]
    return Picks(
        pick=max(candidates, key=lambda name: complete[name], default=None),
        controls=tuple(best_controls),
        failed=tuple(name for name in table if name not in complete),
    )


def compare(
    results: Iterable[Result],
    *,
    baseline: str,
    explore_seeds: Collection[int],
    controls: Sequence[Collection[str]] = (),
    mode: Mode = "max",
    look: int = 1,
    picks: Picks | None = None,
) -> Comparison:
    """Pick a setting on the explore seeds, and compare it with the baseline on all other seeds.

    The pick is called better if the paired interval of its gain lies above 0, against the baseline and against the
    best control of every group (an intersection-union test, which needs no correction). Results of the confirm seeds
    for other settings are ignored.

    Args:
        results: ``(setting, seed, value)``, in any order. The value of a failed run is NaN.
        baseline: the setting to improve on.
        explore_seeds: the seeds on which the pick is made.
        controls: groups of other settings that the pick has to beat, such as the baseline with other learning rates.
            The explore seeds select one of each group.
        mode: whether a large or a small value is good.
        look: how often the confirm seeds have been looked at, counting this time. If seeds are added after a look, the
            error level has to be halved, or "better" becomes too frequent.
        picks: what the explore seeds decided, if it was decided before; None picks now.

    Raises:
        ValueError: if an argument is out of range, or a run occurs twice.

    Example:
        >>> import random
        >>> rng = random.Random(0)
        >>> def run(gain, seed): return gain + rng.gauss(0, 0.1)
        >>> results = [(name, seed, run(gain, seed)) for seed in range(13) for name, gain in [("0", 0), ("2", 1)]]
        >>> comparison = compare(results, baseline="0", explore_seeds=range(3))
        >>> comparison.picks.pick, comparison.verdict, len(comparison.differences[0].seeds)
        ('2', 'better', 10)
    """
    level = level_of_look(look)
    every = list(results)
    as_table(every)  # a run that occurs twice is an error in either phase
    if picks is None:
        explored = (row for row in every if row[1] in explore_seeds)
        picks = pick(explored, baseline=baseline, controls=controls, mode=mode)
    confirm = as_table(row for row in every if row[1] not in explore_seeds)
    of_pick = confirm.get(picks.pick or "", {})
    failed_seeds = tuple(sorted(seed for seed, value in of_pick.items() if not math.isfinite(value)))
    differences = tuple(
        difference
        for name in (baseline, *picks.controls)
        if (difference := _difference(name, of_pick, confirm.get(name, {}), _sign(mode), level))
    )
    failed_controls = tuple(name for group in controls if not set(group) & set(picks.controls) for name in group)
    return Comparison(
        _verdict(picks, differences, [*failed_seeds, *failed_controls]),
        picks,
        baseline,
        differences,
        failed_seeds,
        failed_controls,
        level,
        look,
    )


def as_table(results: Iterable[Result]) -> dict[str, dict[int, float]]:
    """Return the values by setting and seed.

    Raises:
        ValueError: if a run occurs twice.
    """
    table: dict[str, dict[int, float]] = {}
    for name, seed, value in results:
        if seed in table.setdefault(name, {}):
            raise ValueError(f"setting {name!r} has two results of seed {seed}")
        table[name][seed] = float(value)
    return table


def _difference(
    against: str, of_pick: Mapping[int, float], of_other: Mapping[int, float], sign: int, level: float
) -> Difference | None:
    pairs = {
        seed: sign * (of_pick[seed] - of_other[seed])
        for seed in sorted(of_pick.keys() & of_other.keys())
        if math.isfinite(of_pick[seed]) and math.isfinite(of_other[seed])
    }
    if len(pairs) < 2:
        return None
    values = tuple(pairs.values())
    largest = max(abs(value) for seed in pairs for value in (of_pick[seed], of_other[seed]))
    mean, low, high = (float(number) for number in paired_interval(values, level))
    sd = statistics.stdev(values)
    if max(values) - min(values) <= _ROUNDING * largest:
        mean, sd = 0.0 if abs(mean) <= _ROUNDING * largest else mean, 0.0
        low = high = mean
    detectable = detectable_gain(sd, len(values), level)
    needed = seeds_needed(sd, detectable / 2, level) if detectable > 0 else len(values)
    return Difference(against, tuple(pairs), values, mean, low, high, detectable, needed)


def _verdict(picks: Picks, differences: Sequence[Difference], failed: Sequence[object]) -> Verdict:
    if picks.pick is None or failed:
        return "failed"
    if len(differences) < 1 + len(picks.controls):
        return "unfinished"
    if any(d.mean and not d.varies for d in differences):
        return "no spread"
    against_baseline, *against_controls = differences
    if against_baseline.high < 0:
        return "worse"
    if against_baseline.low <= 0:
        return "no difference"
    return "better" if all(d.low > 0 for d in against_controls) else "not better than every control"


def _sign(mode: str) -> int:
    if mode not in ("max", "min"):
        raise ValueError(f"`mode` must be 'max' or 'min', got {mode!r}")
    return 1 if mode == "max" else -1
