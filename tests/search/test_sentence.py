import numpy as np
import pytest

from polyloss_lightning.search import Setting, compare
from polyloss_lightning.search.plan import Plan
from polyloss_lightning.search.sentence import Unit, sentence

PLAN = Plan(
    (
        Setting("0", 0, "cross-entropy"),
        Setting("2", 2, "epsilon 2"),
        Setting("x2", 0, "cross-entropy at 2 times the learning rate"),
    ),
    "0",
    (("x2",),),
)
UNIT = Unit("test/balanced_accuracy", True)


def sentence_for(gain, control, noise=0.01):
    rng = np.random.default_rng(0)
    true = {"0": 0.8, "2": 0.8 + gain, "x2": 0.8 + control}
    rows = [(name, seed, value + rng.normal(0, noise)) for name, value in true.items() for seed in range(13)]
    comparison = compare(rows, baseline="0", controls=[["x2"]], explore_seeds=range(3))
    return sentence(comparison, PLAN, UNIT), comparison


def test_a_gain_is_stated_with_its_interval_against_baseline_and_control():
    text, comparison = sentence_for(gain=0.05, control=0.02)
    first, second = comparison.differences
    assert text == (
        f"epsilon 2, picked on seeds 0 to 2, beats cross-entropy by {100 * first.mean:.1f} points of balanced accuracy "
        f"on 10 fresh seeds (95 % interval {100 * first.low:.1f} to {100 * first.high:.1f}), and cross-entropy at 2 "
        f"times the learning rate by {100 * second.mean:.1f} ({100 * second.low:.1f} to {100 * second.high:.1f})."
    )


def test_no_difference_is_stated_with_what_would_have_been_seen():
    text, comparison = sentence_for(gain=0.0, control=0.0)
    (difference, _) = comparison.differences
    assert "no gain detected with 10 seeds" in text
    assert f"a gain of {100 * difference.detectable:.1f} would have been detected with 80 % probability" in text
    assert f"detecting half of it takes {difference.seeds_for_half} seeds" in text


def test_a_gain_that_a_control_has_too():
    text, _ = sentence_for(gain=0.05, control=0.05)
    assert "beats cross-entropy by" in text
    assert (
        "but cross-entropy at 2 times the learning rate may do as well; against it: no gain detected with 10 seeds"
        in text
    )


def test_a_control_that_is_better_than_the_pick():
    text, comparison = sentence_for(gain=0.05, control=0.1)
    second = comparison.differences[1]
    assert text.endswith(
        f", but cross-entropy at 2 times the learning rate is better still, by {-100 * second.mean:.1f} "
        f"({-100 * second.high:.1f} to {-100 * second.low:.1f})."
    )


def test_equal_values_are_stated_without_an_interval():
    text, _ = sentence_for(gain=0.0, control=0.0, noise=0.0)
    assert text == (
        "epsilon 2, picked on seeds 0 to 2, against cross-entropy: no gain detected, because both have the same value "
        "on each of 10 seeds."
    )


def test_the_same_gain_on_all_seeds_is_questioned():
    text, _ = sentence_for(gain=0.05, control=0.0, noise=0.0)
    assert text == (
        "epsilon 2, picked on seeds 0 to 2, differs from cross-entropy by 5.0 points of balanced accuracy on each of "
        "10 fresh seeds, so there is no interval, and nothing is claimed. Do the runs depend on the seed?"
    )


def test_worse():
    text, _ = sentence_for(gain=-0.05, control=0.0)
    assert "is worse than cross-entropy by" in text


@pytest.mark.parametrize(
    ("metric", "values", "percent", "words"),
    [
        ("val/balanced_accuracy", [0.2, 1.0], True, "points of balanced accuracy"),
        ("val/accuracy", [55.0, 60.0], False, "of accuracy"),
        ("val/poly/base_loss", [0.5], False, "of base loss"),
        ("", [0.5], False, "in value"),
    ],
)
def test_units(metric, values, percent, words):
    unit = Unit.of(metric, values)
    assert (unit.percent, unit.words) == (percent, words)
