import pytest
import torch

from polyloss_lightning.core import Entries, Polynomial
from polyloss_lightning.core.loss import reduce as reduce_entries


def entries(weight, *, class_dim=None, denominator=1.0, dtype=torch.float32):
    weight = torch.tensor(weight)
    return Entries(
        log_p=-VALUE,
        weight=weight,
        target=torch.zeros_like(weight, dtype=torch.int64),
        denominator=torch.tensor(denominator),
        class_dim=class_dim,
        dtype=dtype,
    )


VALUE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
WEIGHT = [[1.0, 0.5], [0.0, 2.0]]


def reduce(entries, reduction):
    """At epsilon 0, the value of an entry is -log P."""
    return reduce_entries([entries], Polynomial((0.0,)), reduction)


@pytest.mark.parametrize(
    ("class_dim", "expected"), [(None, [[1.0, 1.0], [0.0, 8.0]]), (0, [1.0, 9.0]), (1, [2.0, 8.0])]
)
def test_none_weighs_and_sums_over_classes_only(class_dim, expected):
    assert reduce(entries(WEIGHT, class_dim=class_dim), "none").tolist() == expected


@pytest.mark.parametrize("class_dim", [None, 0, 1])
def test_sum_and_mean_differ_by_the_denominator_of_the_link(class_dim):
    given = entries(WEIGHT, class_dim=class_dim, denominator=4.0)
    assert reduce(given, "sum") == 10
    assert reduce(given, "mean") == 2.5


def test_nothing_that_counts_is_nan_for_mean_and_zero_for_sum():
    given = entries([[0.0, 0.0], [0.0, 0.0]], denominator=0.0)
    assert reduce(given, "mean").isnan()
    assert reduce(given, "sum") == 0


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_loss_has_the_dtype_that_the_link_names(reduction, dtype):
    assert reduce(entries(WEIGHT, dtype=dtype), reduction).dtype == dtype
