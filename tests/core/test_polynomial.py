import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from polyloss_lightning.core.polynomial import as_epsilon, check_num_terms, coefficients, value

GAMMAS = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0]
EPSILONS = [(0.0,), (1.0,), (-1.0,), (-0.5, 0.25, 2.0)]


def log_p_of(*pt):
    return torch.tensor(pt, dtype=torch.float64).log()


def polynomial(pt, epsilon, gamma=0.0, num_terms=None):
    """The definition, on Python floats."""
    miss = 1 - pt
    series = -math.log(pt) if num_terms is None else sum(miss**j / j for j in range(1, num_terms + 1))
    return miss**gamma * (series + sum(e * miss**j for j, e in enumerate(epsilon, start=1)))


@given(
    pt=st.floats(1e-6, 0.999),
    epsilon=st.lists(st.floats(-3, 10), min_size=1, max_size=4),
    gamma=st.sampled_from(GAMMAS),
    extra_terms=st.none() | st.integers(0, 5),
)
def test_value_is_the_definition(pt, epsilon, gamma, extra_terms):
    num_terms = None if extra_terms is None else len(epsilon) + extra_terms
    expected = polynomial(pt, epsilon, gamma, num_terms)
    actual = value(log_p_of(pt), epsilon, gamma, num_terms).item()
    assert actual == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_gradient_in_pt_is_the_series_of_the_paper(gamma, epsilon):
    pt = torch.tensor([0.3, 0.5, 0.8, 0.95], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(pt.log(), epsilon, gamma).sum(), pt)
    # (1-0.3)^400 is below the last digit of a double.
    expected = [
        sum(c * (j + gamma) * (1 - p) ** (j + gamma - 1) for j, c in enumerate(coefficients(400, epsilon), start=1))
        for p in pt.tolist()
    ]
    torch.testing.assert_close(-slope, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("num_terms", [None, 3])
def test_first_and_second_derivatives_match_finite_differences(gamma, epsilon, num_terms):
    # Pt of 0.9999 is as near 1 as steps of 1e-6 can resolve.
    log_p = torch.tensor([-5.0, -1.0, -0.1, -1e-4], dtype=torch.float64, requires_grad=True)

    def function(log_p):
        return value(log_p, epsilon, gamma, num_terms)

    assert gradcheck(function, log_p)
    assert gradgradcheck(function, log_p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("num_terms", [None, 3])
def test_value_and_gradient_are_finite_up_to_certainty(dtype, gamma, num_terms):
    sizes = [0.0, 1e-45, 1e-40, 1e-38, 1e-30, 1e-8, 1e-3, 1.0, 100.0, 2e4]
    log_p = -torch.tensor(sizes, dtype=dtype)
    log_p.requires_grad_()
    result = value(log_p, (1.0, -0.5), gamma, num_terms)
    (slope,) = torch.autograd.grad(result.sum(), log_p)
    assert result.isfinite().all()
    assert slope.isfinite().all()
    assert slope.max() <= 0  # a higher Pt is never punished with coefficients 2 and 0


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0, 5.0])
def test_focused_loss_and_its_slope_vanish_at_certainty(gamma):
    log_p = torch.zeros(1, requires_grad=True)
    result = value(log_p, (1.0,), gamma)
    (slope,) = torch.autograd.grad(result.sum(), log_p)
    assert result.item() == pytest.approx(0, abs=1e-30)
    # (1-Pt)^0.1 of the smallest normal float32 is 1.6e-4, and the first coefficient is 2.
    assert slope.item() == pytest.approx(0, abs=4e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-8, 1e-15, 1e-25])
def test_confident_entries_keep_full_relative_accuracy(dtype, gamma, size):
    log_p = torch.tensor([-size], dtype=dtype)
    miss = -math.expm1(log_p.item())
    close = {"rel": 32 * torch.finfo(dtype).eps, "abs": torch.finfo(dtype).tiny}
    expected = miss**gamma * (-log_p.item() + 1.5 * miss)
    assert value(log_p, (1.5,), gamma).item() == pytest.approx(expected, **close)


def test_coefficients_are_moved_where_there_is_an_epsilon():
    assert coefficients(4, [1.0, -0.5]) == [2.0, 0.0, 1 / 3, 0.25]
    assert coefficients(2) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("given_", "expected"), [(2, (2.0,)), (-0.5, (-0.5,)), ([1, -1.0], (1.0, -1.0)), ((3.0,), (3.0,))]
)
def test_epsilon_becomes_a_tuple_of_floats(given_, expected):
    epsilon = as_epsilon(given_)
    assert epsilon == expected
    assert all(type(entry) is float for entry in epsilon)


@pytest.mark.parametrize(
    ("epsilon", "error", "named"),
    [
        (math.nan, ValueError, "nan"),
        (math.inf, ValueError, "inf"),
        ([1.0, -math.inf], ValueError, "-inf"),
        ([], ValueError, "empty"),
        ("1.0", TypeError, "'1.0'"),
        (["a"], TypeError, "'a'"),
        (None, TypeError, "None"),
        (True, TypeError, "True"),
        (1j, TypeError, "1j"),
        ([[1.0]], TypeError, r"\[\[1.0\]\]"),
        (torch.tensor(1.0), TypeError, r"tensor\(1.\)"),
        (torch.nn.Parameter(torch.tensor(1.0)), TypeError, r"tensor\(1., requires_grad=True\) \(Parameter\)"),
        (b"12", TypeError, "b'12'"),
        (bytearray(b"1"), TypeError, "bytearray"),
        (10**400, ValueError, "1000"),
        ([1, 10**5000], ValueError, "4300 digits"),
    ],
)
def test_what_is_no_finite_number_is_refused_by_name(epsilon, error, named):
    with pytest.raises(error, match=rf"`epsilon`.*{named}"):
        as_epsilon(epsilon)


@pytest.mark.parametrize(("num_terms", "named"), [(0, "0"), (-3, "-3"), (1, r"\(2\), got 1")])
def test_number_of_terms_must_cover_the_epsilons(num_terms, named):
    with pytest.raises(ValueError, match=rf"`num_terms`.*{named}"):
        check_num_terms(num_terms, (1.0, 2.0))


@pytest.mark.parametrize("num_terms", [1.5, 2.0, True, "2"])
def test_number_of_terms_must_be_an_integer(num_terms):
    with pytest.raises(TypeError, match=rf"`num_terms` must be None .*or an integer.*got {num_terms!r}"):
        check_num_terms(num_terms, (1.0, 2.0))


@pytest.mark.parametrize("num_terms", [None, 2, 10])
def test_number_of_terms_that_covers_the_epsilons_is_taken(num_terms):
    check_num_terms(num_terms, (1.0, 2.0))
