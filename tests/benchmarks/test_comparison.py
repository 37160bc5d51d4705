"""A few cells of the simulation, with fewer experiments, and the simulation compared with the library function."""

import numpy as np
import pytest

from polyloss_lightning.search import compare


@pytest.fixture(scope="module")
def simulation(load):
    return load("comparison")


@pytest.mark.parametrize("index", [0, 1, 2])
def test_false_claims_are_rare_and_the_stated_gain_is_not_biased(simulation, index):
    truth = simulation.TRUTHS[index]
    assert truth.is_null
    # Without controls, which make "better" rarer. 4,000 experiments: 2.5 percent has a standard error of 0.25.
    cell = simulation.explore_then_confirm(truth, np.random.default_rng(1), experiments=4000, controls=0)
    assert cell.claims <= 0.0325
    assert abs(cell.bias) <= 3 * cell.bias_error
    assert 0.94 <= cell.coverage <= 0.968


def test_the_usual_design_overstates_the_gain_of_the_best_setting(simulation):
    cell = simulation.bonferroni(simulation.TRUTHS[0], np.random.default_rng(1), seeds=9, experiments=2000)
    assert cell.bias > 0.3


def test_power_of_the_shipped_design(simulation):
    (truth,) = (truth for truth in simulation.TRUTHS if truth.name == "one setting gains 2 sd")
    assert simulation.explore_then_confirm(truth, np.random.default_rng(1), experiments=2000).claims > 0.9
    assert simulation.bonferroni(truth, np.random.default_rng(1), seeds=9, experiments=2000).claims < 0.82


def test_the_simulation_is_that_of_compare(simulation):
    truth = simulation.TRUTHS[4]
    cell = simulation.explore_then_confirm(truth, np.random.default_rng(2), experiments=60)
    values = truth.noise(np.random.default_rng(2), (60, 9, 13))
    names = [*map(str, range(6)), "x0.5", "x2", "x3"]
    better, errors = 0, []
    for experiment in values:
        rows = [
            (name, seed, experiment[i, seed] + (truth.gains[i] if i < 6 else 0.0))
            for i, name in enumerate(names)
            for seed in range(13)
        ]
        outcome = compare(rows, baseline="2", controls=[names[6:]], explore_seeds=range(3))
        better += outcome.verdict == "better"
        errors.append(outcome.differences[0].mean - truth.gains[int(outcome.picks.pick)])
    assert cell.claims == pytest.approx(better / 60)
    assert cell.bias == pytest.approx(np.mean(errors))
