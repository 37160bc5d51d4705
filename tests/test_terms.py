import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning.core.polynomial import value
from polyloss_lightning.terms import first_term_gradient, first_term_share, terms

GAMMAS = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0]
EPSILONS = [(0.0,), (1.0,), (-1.0,), (-0.5, 0.25, 2.0)]
PT = torch.tensor([1e-30, 1e-6, 0.01, 0.3, 0.5, 0.9, 1 - 1e-6], dtype=torch.float64)


def log_p_of(*pt):
    return torch.tensor(pt, dtype=torch.float64).log()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("num_terms", [3, 7])
def test_truncated_value_is_the_sum_of_its_terms(gamma, epsilon, num_terms):
    log_p = log_p_of(0.01, 0.3, 0.7, 0.999)
    shown = terms(log_p, num_terms, epsilon, gamma)
    assert shown.shape == (num_terms, 4)
    torch.testing.assert_close(shown.sum(0), value(log_p, epsilon, gamma, num_terms), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_terms_converge_to_the_value(gamma, epsilon):
    log_p = log_p_of(0.3, 0.7, 0.999)
    torch.testing.assert_close(
        terms(log_p, 200, epsilon, gamma).sum(0), value(log_p, epsilon, gamma), rtol=1e-12, atol=1e-15
    )


def test_epsilon_of_minus_one_over_j_removes_term_j():
    shown = terms(log_p_of(0.2, 0.6), 4, [-1.0, -0.5, -1 / 3])
    assert shown[:3].abs().max() == 0
    assert shown[3].min() > 0


def test_terms_of_the_series_without_epsilon():
    torch.testing.assert_close(
        terms(log_p_of(0.5), 3, gamma=2.0).squeeze(), torch.tensor([0.5**3, 0.5**4 / 2, 0.5**5 / 3]).double()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-8, 1e-15, 1e-25])
def test_terms_of_confident_entries_keep_full_relative_accuracy(dtype, gamma, size):
    log_p = torch.tensor([-size], dtype=dtype)
    miss = -math.expm1(log_p.item())
    close = {"rel": 32 * torch.finfo(dtype).eps, "abs": torch.finfo(dtype).tiny}
    assert terms(log_p, 1, (1.5,), gamma).item() == pytest.approx(2.5 * miss ** (1 + gamma), **close)


def slope(log_p, epsilon, gamma, num_terms):
    """-dL/dPt by autograd through the value."""
    log_p = log_p.clone().requires_grad_()
    value(log_p, epsilon, gamma, num_terms).sum().backward()
    return -log_p.grad / log_p.detach().exp()


@pytest.mark.parametrize("epsilon", [-0.5, 0.0, 1.0, 5.45])
def test_share_of_poly1_cross_entropy_is_its_closed_form(epsilon):
    expected = (1 + epsilon) * PT / (1 + epsilon * PT)
    torch.testing.assert_close(first_term_share(PT.log(), [epsilon]), expected)


@given(
    st.floats(1e-3, 1 - 1e-4),
    st.lists(st.floats(0, 3), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    st.one_of(st.none(), st.integers(4, 9)),
)
def test_share_is_the_first_terms_part_of_the_gradient(pt, above, gamma, num_terms):
    epsilon = [distance - 1 / j for j, distance in enumerate(above, start=1)]
    if min(1 / j + e for j, e in enumerate(epsilon, start=1)) < 0:  # rounding
        return
    log_p = torch.tensor([pt], dtype=torch.float64).log()
    share = first_term_share(log_p, epsilon, gamma, num_terms)
    first = first_term_gradient(log_p, epsilon, gamma)
    whole = slope(log_p, epsilon, gamma, num_terms)
    torch.testing.assert_close(share * whole, first, rtol=1e-6, atol=1e-9)
    assert 0 <= share <= 1


def test_share_is_that_of_the_summed_series():
    epsilon, gamma = (0.7, -0.3), 1.5
    j = torch.arange(1, 200_000, dtype=torch.float64)
    c = 1 / j
    c[:2] += torch.tensor(epsilon)
    for pt in (0.01, 0.2, 0.7):
        gradient = c * (j + gamma) * (1 - pt) ** (j + gamma - 1)
        share = first_term_share(torch.tensor([pt], dtype=torch.float64).log(), epsilon, gamma)
        torch.testing.assert_close(share[0], gradient[0] / gradient.sum())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("num_terms", [None, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_share_has_its_limits_at_both_ends(gamma, num_terms, dtype):
    log_p = torch.tensor([-math.inf, -1e4, 0.0], dtype=dtype)
    share = first_term_share(log_p, [1.0], gamma, num_terms)
    slopes = [(2.0 if j == 1 else 1 / j) * (j + gamma) for j in range(1, (num_terms or 0) + 1)]
    at_zero = slopes[0] / sum(slopes) if num_terms else 0.0
    torch.testing.assert_close(share, torch.tensor([at_zero, at_zero, 1.0], dtype=dtype))


@pytest.mark.parametrize(("epsilon", "num_terms"), [([-1.0], None), ([-1.0, 2.0], 4), ([-1.0], 1), ([-1.0, -0.5], 2)])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_share_is_zero_without_a_first_term(epsilon, num_terms, gamma):
    log_p = torch.tensor([-math.inf, -1.0, 0.0])
    assert torch.equal(first_term_share(log_p, epsilon, gamma, num_terms), torch.zeros(3))


@pytest.mark.parametrize("epsilon", [[-1.5], [1.0, -0.6], [0.0, 0.0, -0.4]])
def test_there_is_no_share_where_a_coefficient_is_negative(epsilon):
    assert first_term_share(PT.log(), epsilon).isnan().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_share_keeps_its_digits_in_float32(gamma):
    log_p = torch.tensor([-20.0, -3.0, -0.1, -1e-4, -1e-7], dtype=torch.float64)
    for epsilon in (-0.999, 0.0, 2.0):
        exact = first_term_share(log_p, [epsilon], gamma)
        torch.testing.assert_close(
            first_term_share(log_p.float(), [epsilon], gamma).double(), exact, rtol=2e-3, atol=1e-6
        )


def test_first_gradient_does_not_depend_on_pt_without_focusing():
    assert torch.equal(first_term_gradient(PT.log(), [2.0]), torch.full_like(PT, 3.0))
    torch.testing.assert_close(first_term_gradient(PT.log(), [2.0], 1.5), 3 * 2.5 * (1 - PT) ** 1.5)
    assert torch.equal(first_term_gradient(PT.log(), [-3.0]), torch.full_like(PT, 2.0))
