import numpy as np
import pytest
import torch

from polyloss_lightning.plotting import curve_figures
from polyloss_lightning.plotting.curves import coefficients_figure, loss_and_gradient_figure


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def loss(pt, epsilon, gamma):
    return (1 - pt) ** gamma * (-np.log(pt) + sum(e * (1 - pt) ** (j + 1) for j, e in enumerate(epsilon)))


def slope(pt, epsilon, gamma):
    inner = -np.log(pt) + sum(e * (1 - pt) ** (j + 1) for j, e in enumerate(epsilon))
    inner_slope = 1 / pt + sum((j + 1) * e * (1 - pt) ** j for j, e in enumerate(epsilon))
    outer_slope = gamma * (1 - pt) ** (gamma - 1) if gamma else 0.0
    return (1 - pt) ** gamma * inner_slope + outer_slope * inner


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_curves_are_the_loss_and_its_negative_slope(gamma):
    figure = curve_figures(gamma, [-1, 0, 1, 2])["loss_and_gradient"]
    base = "focal loss (ε = 0)" if gamma else "cross-entropy (ε = 0)"
    for axes, formula in zip(figure.axes, (loss, slope), strict=True):
        drawn = lines(axes)
        assert set(drawn) == {base, "ε = −1", "ε = 1", "ε = 2"}
        for label, epsilon in ((base, 0.0), ("ε = −1", -1.0), ("ε = 1", 1.0), ("ε = 2", 2.0)):
            pt, y = drawn[label].get_data()
            inside = pt < 1
            np.testing.assert_allclose(y[inside], formula(pt[inside], [epsilon], gamma), rtol=1e-9, atol=1e-12)
            assert np.isfinite(y).all()


def test_a_run_with_a_moving_epsilon_has_its_first_and_last_curve_and_the_band_between_them():
    trained = [(-1.0,), (3.0,), (2.0,)]
    figure = loss_and_gradient_figure(0.0, [(0.0,), (1.0,)], trained)
    axes = figure.axes[0]
    drawn = lines(axes)
    for label, epsilon in (("this run, first: ε = −1", -1.0), ("this run, last: ε = 2", 2.0)):
        pt, y = drawn[label].get_data()
        np.testing.assert_allclose(y, loss(pt, [epsilon], 0.0), rtol=1e-9, atol=1e-12)
        assert drawn[label].get_linewidth() > drawn["ε = 1"].get_linewidth()
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    at_half = corners[np.isclose(corners[:, 0], 0.5), 1]
    assert at_half.min() == pytest.approx(loss(0.5, [-1.0], 0.0))
    assert at_half.max() == pytest.approx(loss(0.5, [3.0], 0.0))


def test_a_run_that_keeps_few_terms_has_the_truncated_curve():
    figure = loss_and_gradient_figure(0.0, [], [(-1.0,)] * 2, num_terms=2)
    pt, y = lines(figure.axes[0])["this run: ε = −1, 2 terms"].get_data()
    np.testing.assert_allclose(y, (1 - pt) ** 2 / 2, rtol=1e-9, atol=1e-15)
    pt, y = lines(figure.axes[1])["this run: ε = −1, 2 terms"].get_data()
    np.testing.assert_allclose(y, 1 - pt, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_coefficients_are_drawn_at_their_powers_next_to_those_of_cross_entropy(gamma):
    (axes,) = coefficients_figure(gamma, [(1.0, -0.5)], count=4).axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [1, 1 / 2, 1 / 3, 1 / 4])
    x, y = lines(axes)["ε = (1, −0.5)"].get_data()
    np.testing.assert_allclose(x, np.arange(1, 5) + gamma)
    np.testing.assert_allclose(y, [2, 0, 1 / 3, 1 / 4])


def test_as_many_coefficients_are_drawn_as_the_loss_and_epsilon_have():
    (axes,) = coefficients_figure(0.0, [(1.0,)], num_terms=3).axes
    assert len(lines(axes)["ε = 1"].get_xdata()) == 3
    (axes,) = coefficients_figure(0.0, [(0.1,) * 12]).axes
    assert len(axes.patches) == 14


def test_curves_do_not_need_gradients_to_be_on():
    with torch.no_grad():
        without = curve_figures(epsilon=[1])["loss_and_gradient"]
    with torch.inference_mode():
        inference = curve_figures(epsilon=[1])["loss_and_gradient"]
    for figure in (without, inference):
        pt, y = lines(figure.axes[1])["ε = 1"].get_data()
        np.testing.assert_allclose(y, 1 / pt + 1, rtol=1e-9)


@pytest.mark.parametrize("gamma", [-0.5, float("nan"), float("inf")])
def test_gamma_out_of_range_is_named(gamma):
    with pytest.raises(ValueError, match=rf"`gamma` must be a finite number of at least 0, got {gamma}"):
        curve_figures(gamma)


def test_epsilon_out_of_range_is_named():
    with pytest.raises(ValueError, match="`epsilon` must be finite"):
        curve_figures(epsilon=[float("nan")])
