import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning.core.polynomial import first_term_gradient, first_term_share, value

PT = torch.tensor([1e-30, 1e-6, 0.01, 0.3, 0.5, 0.9, 1 - 1e-6], dtype=torch.float64)


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
