import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning.data import long_tail_counts, long_tail_indices

targets_of_all_classes = st.integers(1, 8).flatmap(
    lambda classes: st.lists(st.integers(0, classes - 1), max_size=60).map(lambda extra: [*range(classes), *extra])
)
imbalances = st.floats(1, 1e4)


def counts_of(targets, kept):
    return torch.bincount(torch.tensor(targets)[kept], minlength=max(targets) + 1).tolist()


def test_counts_are_the_published_exponential_profile():
    # Cao et al. 2019: n_max * mu ** (c / (C - 1)) with mu = 1 / imbalance; 5000 images a class, imbalance 100.
    expected = [5000 * 0.01 ** (rank / 9) for rank in range(10)]
    assert long_tail_counts([5000] * 10, 100) == [round(count) for count in expected]
    assert long_tail_counts([5000] * 10, 100)[-1] == 50


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=50), imbalances)
def test_counts_fall_stay_available_and_leave_no_class_empty(available, imbalance):
    counts = long_tail_counts(available, imbalance)
    assert len(counts) == len(available)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == min(available)
    assert counts[-1] >= 1


def test_counts_do_not_depend_on_the_order_of_the_classes():
    assert long_tail_counts([90, 100, 80], 7) == long_tail_counts([80, 90, 100], 7)


@given(targets_of_all_classes, imbalances, st.integers(0, 2**31))
def test_kept_samples_follow_the_counts_in_an_order_of_the_seed(targets, imbalance, seed):
    kept = long_tail_indices(targets, imbalance, seed)
    available = torch.bincount(torch.tensor(targets)).tolist()
    assert kept == sorted(set(kept))
    assert sorted(counts_of(targets, kept), reverse=True) == long_tail_counts(available, imbalance)
    assert kept == long_tail_indices(torch.tensor(targets), imbalance, seed)


@given(targets_of_all_classes, imbalances, imbalances, st.integers(0, 2**31))
def test_the_samples_of_a_higher_imbalance_are_a_subset_of_those_of_a_lower_one(targets, one, other, seed):
    fewer, more = (set(long_tail_indices(targets, imbalance, seed)) for imbalance in (max(one, other), min(one, other)))
    assert fewer <= more


def test_every_class_becomes_the_rarest_for_some_seed():
    targets = [c for c in range(5) for _ in range(20)]
    counts = [counts_of(targets, long_tail_indices(targets, 20, seed)) for seed in range(60)]
    assert {row.index(min(row)) for row in counts} == set(range(5))
    assert {row.index(max(row)) for row in counts} == set(range(5))


def test_the_global_random_state_is_neither_used_nor_changed():
    targets = [0, 1] * 50
    torch.manual_seed(1)
    state, first = torch.get_rng_state(), long_tail_indices(targets, 10, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert long_tail_indices(targets, 10, seed=3) == first


@pytest.mark.parametrize("imbalance", [0.5, 0, -1, math.nan, math.inf])
def test_an_imbalance_out_of_range_is_named(imbalance):
    with pytest.raises(ValueError, match=r"`imbalance` must be a finite number of at least 1, got"):
        long_tail_counts([5, 5], imbalance)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([0, 2, 2], ValueError, r"every class needs at least 1 sample, got counts \[1, 0, 2\]"),
        ([], (TypeError, ValueError), "`targets`"),
        ([-1, 0], ValueError, "at least 0, got -1"),
        ([[0], [1]], ValueError, r"got \(2, 1\)"),
        ([0.0, 1.0], TypeError, "float32"),
    ],
)
def test_wrong_targets_are_named(targets, error, message):
    with pytest.raises(error, match=message):
        long_tail_indices(targets, 2)
