import math

import numpy as np
import pytest
from scipy import stats

from polyloss_lightning.search import compare, pick

EXPLORE = range(3)


def results(gains, seeds=range(13), noise=0.1, seed=0):
    """(setting, seed, value) of settings with these true values; the noise is drawn setting by setting."""
    rng = np.random.default_rng(seed)
    return [(name, s, gain + rng.normal(0, noise)) for name, gain in gains.items() for s in seeds]


def replaced(rows, setting, seed, value):
    return [(n, s, value if (n, s) == (setting, seed) else v) for n, s, v in rows]


def test_the_pick_has_the_best_mean_on_the_explore_seeds():
    rows = [("0", 0, 9.0), ("1", 0, 5.0), ("1", 1, 0.0), ("2", 0, 3.0), ("2", 1, 3.0), ("0", 1, 9.0)]
    assert pick(rows, baseline="0").pick == "2"
    assert pick(rows, baseline="0", mode="min").pick == "1"


def test_neither_the_baseline_nor_a_control_is_picked():
    rows = results({"0": 5.0, "1": 0.0, "x2": 4.0, "x3": 3.0}, EXPLORE)
    picks = pick(rows, baseline="0", controls=[["x2", "x3"]])
    assert (picks.pick, picks.controls) == ("1", ("x2",))


def test_a_setting_with_a_failed_or_missing_run_is_not_picked():
    rows = results({"0": 0.0, "1": 1.0, "2": 2.0, "3": 3.0}, EXPLORE)
    rows = [row for row in replaced(rows, "3", 1, math.nan) if row[:2] != ("2", 2)]
    picks = pick(rows, baseline="0")
    assert (picks.pick, picks.failed) == ("1", ("2", "3"))


def test_differences_are_those_of_the_paired_t_test_on_the_fresh_seeds():
    rows = results({"0": 0.0, "1": -1.0, "2": 0.2})
    (difference,) = compare(rows, baseline="0", explore_seeds=EXPLORE).differences
    value = {(n, s): v for n, s, v in rows}
    pairs = [[value[name, s] for s in range(3, 13)] for name in ("2", "0")]
    assert (difference.low, difference.high) == pytest.approx(tuple(stats.ttest_rel(*pairs).confidence_interval(0.95)))
    assert difference.seeds == tuple(range(3, 13))
    assert difference.mean == pytest.approx(np.mean(pairs[0]) - np.mean(pairs[1]))


def test_explore_seeds_do_not_enter_the_difference():
    rows = results({"0": 0.0, "2": 0.1})
    moved = [(n, s, v + (100 if n == "2" and s in EXPLORE else 0)) for n, s, v in rows]
    assert (
        compare(rows, baseline="0", explore_seeds=EXPLORE).differences
        == compare(moved, baseline="0", explore_seeds=EXPLORE).differences
    )


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ({"0": 0.0, "2": 1.0, "x2": 0.0}, "better"),
        ({"0": 0.0, "2": 1.0, "x2": 1.0}, "not better than every control"),
        ({"0": 0.0, "2": 0.0, "x2": 0.0}, "no difference"),
        ({"0": 0.0, "2": -1.0, "x2": 0.0}, "worse"),
    ],
)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_verdict(gains, verdict, mode):
    sign = 1 if mode == "max" else -1
    rows = [(n, s, sign * v) for n, s, v in results(gains, seed=1)]
    comparison = compare(rows, baseline="0", controls=[["x2"]], explore_seeds=EXPLORE, mode=mode)
    assert comparison.verdict == verdict
    assert [d.against for d in comparison.differences] == ["0", "x2"]


def test_the_pick_must_beat_one_control_of_every_group():
    rows = results({"0": 0.0, "2": 1.0, "x2": 0.0, "x3": 0.3, "longer": 1.5})
    groups = [["x2", "x3"], ["longer"]]
    comparison = compare(rows, baseline="0", controls=groups, explore_seeds=EXPLORE)
    assert comparison.picks.controls == ("x3", "longer")
    assert comparison.verdict == "not better than every control"


def test_a_pick_that_fails_on_a_fresh_seed_is_not_better():
    rows = replaced(results({"0": 0.0, "2": 1.0}), "2", 7, math.nan)
    comparison = compare(rows, baseline="0", explore_seeds=EXPLORE)
    assert (comparison.verdict, comparison.failed_seeds) == ("failed", (7,))


def test_seeds_on_which_the_baseline_failed_are_left_out_and_can_be_counted():
    rows = replaced(results({"0": 0.0, "2": 1.0}), "0", 7, math.nan)
    comparison = compare(rows, baseline="0", explore_seeds=EXPLORE)
    assert comparison.verdict == "better"
    assert 7 not in comparison.differences[0].seeds


def test_without_fresh_seeds_nothing_is_claimed():
    comparison = compare(results({"0": 0.0, "2": 1.0}, EXPLORE), baseline="0", explore_seeds=EXPLORE)
    assert (comparison.picks.pick, comparison.verdict, comparison.differences) == ("2", "unfinished", ())


def test_a_second_look_has_the_interval_of_half_the_level():
    rows = results({"0": 0.0, "2": 0.1})
    first, second = (compare(rows, baseline="0", explore_seeds=EXPLORE, look=look) for look in (1, 2))
    value = {(n, s): v for n, s, v in rows}
    pairs = [[value[name, s] for s in range(3, 13)] for name in ("2", "0")]
    expected = stats.ttest_rel(*pairs).confidence_interval(0.975)
    (difference,) = second.differences
    assert (difference.low, difference.high) == pytest.approx(tuple(expected))
    assert difference.detectable > first.differences[0].detectable


def test_equal_values_are_no_difference():
    rows = [(name, seed, 0.5) for name in ("0", "2") for seed in range(13)]
    assert compare(rows, baseline="0", explore_seeds=EXPLORE).verdict == "no difference"


@pytest.mark.parametrize("gain", [0.1, -0.1])
def test_the_same_gain_on_all_seeds_is_not_claimed(gain):
    # As of runs that do not depend on the seed, or of a coarse metric on two seeds; up to the rounding of float32.
    rows = [
        (name, s, float(np.float32(0.5 + 0.01 * s + added)))
        for name, added in (("0", 0), ("2", gain))
        for s in range(13)
    ]
    comparison = compare(rows, baseline="0", explore_seeds=EXPLORE)
    assert comparison.verdict == "no spread"
    assert not comparison.differences[0].varies


def test_better_is_as_seldom_as_promised_for_a_coarse_metric_and_two_seeds():
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(100):
        rows = [(name, s, rng.binomial(100, 0.99) / 100) for name in ("0", "2") for s in range(3)]
        verdicts.append(compare(rows, baseline="0", explore_seeds=[0]).verdict)
    assert verdicts.count("better") / 100 <= 0.025


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "best"}, "`mode` must be 'max' or 'min', got 'best'"),
        ({"baseline": "zero"}, r"`baseline` must be among the settings \['0', '2'\], got 'zero'"),
        ({"look": 0}, "`look` must be at least 1"),
        ({"results": [("0", 0, 1.0), ("0", 0, 2.0)]}, "'0' has two results of seed 0"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"results": results({"0": 0.0, "2": 1.0}), "baseline": "0", "explore_seeds": EXPLORE} | change
    with pytest.raises(ValueError, match=message):
        compare(arguments.pop("results"), **arguments)
