import numpy as np
import pytest
from scipy import stats

from polyloss_lightning.search.intervals import detectable_gain, level_of_look, paired_interval, seeds_needed


@pytest.mark.parametrize("level", [0.05, 0.025])
def test_interval_is_that_of_the_paired_t_test(level):
    rng = np.random.default_rng(0)
    pick, other = rng.normal(1, 1, 10), rng.normal(0, 2, 10)
    expected = stats.ttest_rel(pick, other).confidence_interval(1 - level)
    mean, low, high = paired_interval(pick - other, level)
    assert mean == pytest.approx(np.mean(pick - other))
    assert (low, high) == pytest.approx(tuple(expected))


def test_each_row_is_an_experiment():
    differences = np.random.default_rng(0).normal(size=(2, 3, 5))
    together = paired_interval(differences)
    for index in np.ndindex(2, 3):
        assert [float(part[index]) for part in together] == pytest.approx(
            [float(p) for p in paired_interval(differences[index])]
        )


def test_equal_differences_have_an_interval_of_length_zero():
    assert [float(part) for part in paired_interval([0.5, 0.5, 0.5])] == [0.5, 0.5, 0.5]


def test_detectable_gain_is_seen_with_a_probability_of_80_percent():
    gain = detectable_gain(sd=2.0, seeds=6)
    differences = np.random.default_rng(0).normal(gain, 2.0, (40_000, 6))
    seen = (stats.ttest_1samp(differences, 0, axis=1).statistic > stats.t.ppf(0.975, 5)).mean()
    assert seen == pytest.approx(0.8, abs=0.01)


def test_detectable_gain_is_proportional_to_the_noise():
    assert detectable_gain(3.0, 10) == pytest.approx(3 * detectable_gain(1.0, 10))


@pytest.mark.parametrize(("sd", "gain"), [(1.0, 0.5), (1.0, 5.0), (0.3, 0.01)])
def test_seeds_needed_is_the_smallest_number(sd, gain):
    number = seeds_needed(sd, gain)
    assert detectable_gain(sd, number) <= gain
    assert number == 2 or detectable_gain(sd, number - 1) > gain


def test_seeds_needed_stops_at_its_limit():
    assert seeds_needed(1.0, 1e-9, most=1000) == 1000


def test_levels_are_halved_at_each_look():
    assert [level_of_look(look) for look in (1, 2, 3)] == [0.05, 0.025, 0.0125]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_interval([1.0]), "at least 2 differences, got 1"),
        (lambda: detectable_gain(1.0, 1), "at least 2 seeds, got 1"),
        (lambda: seeds_needed(1.0, 0.0), "`gain` must be above 0, got 0.0"),
        (lambda: level_of_look(0), "`look` must be at least 1, got 0"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
