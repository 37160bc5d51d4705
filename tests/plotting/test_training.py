import dataclasses
import math

import numpy as np
import pytest

from polyloss_lightning.plotting.training import crossings, share_figure, terms_figure

TERMS = ("term 1", "term 2", "term 3", "tail (all later terms)")


def labelled(axes):
    handles, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def height(stairs):
    data = stairs.get_data()
    return np.asarray(data.values) - np.asarray(data.baseline)


@pytest.mark.parametrize("num_epochs", [1, 2, 40])
@pytest.mark.parametrize("first", [-3.0, -1.0, 2.0])
def test_stack_and_loss_are_what_was_recorded(run_record, num_epochs, first):
    epochs = run_record(num_epochs, epsilon=lambda t: (first + 3 * t,)).select("train")
    axes = terms_figure(epochs).axes[0]
    drawn = labelled(axes)
    total = sum(height(drawn[label]) for label in TERMS)
    for label, name in zip(TERMS, ("term_1", "term_2", "term_3", "tail"), strict=True):
        np.testing.assert_allclose(height(drawn[label]), [e.metrics[name] for e in epochs], atol=1e-12)
    np.testing.assert_allclose(total, [e.metrics["loss"] for e in epochs], atol=1e-12)
    np.testing.assert_allclose(drawn["loss (train)"].get_data().values, total, atol=1e-12)
    np.testing.assert_allclose(drawn["base loss (ε = 0)"].get_ydata(), [e.metrics["base_loss"] for e in epochs])


def test_percentages_are_of_the_sum_of_magnitudes(run_record):
    epochs = run_record(5, epsilon=lambda t: (-2 + 3 * t, -0.7)).select("train")
    names = ("term_1", "term_2", "term_3", "tail")
    recorded = np.array([[e.metrics[name] for e in epochs] for name in names])
    drawn = labelled(terms_figure(epochs).axes[1])
    shares = np.stack([height(drawn[label]) for label in TERMS])
    np.testing.assert_allclose(shares, 100 * recorded / abs(recorded).sum(0), atol=1e-9)
    np.testing.assert_allclose(abs(shares).sum(0), 100)


def test_a_loss_of_zero_has_no_percentages(run_record):
    (epoch,) = run_record(1, stages=("train",)).epochs
    nothing = dataclasses.replace(epoch, metrics=dict.fromkeys(epoch.metrics, 0.0))
    drawn = labelled(terms_figure([nothing]).axes[1])
    assert all(np.isnan(drawn[label].get_data().values).all() for label in TERMS)


def test_terms_below_zero_stack_downwards(run_record):
    epochs = run_record(1, epsilon=lambda t: (-3.0, -2.0)).select("train")
    metrics = epochs[0].metrics
    assert metrics["term_1"] < 0
    assert metrics["term_2"] < 0
    drawn = labelled(terms_figure(epochs).axes[0])
    assert drawn["term 2"].get_data().baseline[0] == pytest.approx(metrics["term_1"])
    assert drawn["term 3"].get_data().baseline[0] == 0
    assert drawn["tail (all later terms)"].get_data().baseline[0] == pytest.approx(metrics["term_3"])


def test_epsilon_has_a_panel_with_a_line_for_each_coefficient(run_record):
    epochs = run_record(5, epsilon=lambda t: (-1 + 3 * t, 0.5)).select("train")
    first, second = terms_figure(epochs).axes[2].get_lines()
    np.testing.assert_allclose(first.get_ydata(), np.linspace(-1, 2, 5))
    np.testing.assert_allclose(second.get_ydata(), 0.5)
    np.testing.assert_array_equal(first.get_xdata(), range(5))


def test_validation_is_a_thin_dashed_line(run_record):
    record = run_record(4)
    train, val = record.select("train"), record.select("val")
    for figure, label, name, factor in (
        (terms_figure(train, val), "loss (val)", "loss", 1),
        (share_figure(train, val), "val", "first_term_share", 100),
    ):
        line = labelled(figure.axes[0])[label]
        np.testing.assert_allclose(line.get_ydata(), [factor * e.metrics[name] for e in val])
        assert line.get_linestyle() == "--"
        assert line.get_linewidth() < 1.3


def test_a_missing_value_leaves_a_gap(run_record):
    epochs = run_record(5).select("train")
    hole = dict.fromkeys(epochs[2].metrics, math.nan)
    epochs[2] = dataclasses.replace(epochs[2], metrics=hole)
    drawn = labelled(terms_figure(epochs).axes[0])
    for label in (*TERMS, "loss (train)"):
        np.testing.assert_array_equal(np.isnan(drawn[label].get_data().values), [0, 0, 1, 0, 0])
    share = labelled(share_figure(epochs).axes[0])["train"].get_ydata()
    np.testing.assert_array_equal(np.isnan(share), [0, 0, 1, 0, 0])


def test_the_share_below_minus_one_is_a_gap_and_a_text_if_nothing_else_is_drawn(run_record):
    epochs = run_record(5, epsilon=lambda t: (-2 + 2 * t,)).select("train")
    (axes,) = share_figure(epochs).axes
    np.testing.assert_array_equal(np.isnan(labelled(axes)["train"].get_ydata()), [1, 1, 0, 0, 0])
    assert not axes.texts
    (axes,) = share_figure(epochs[:2]).axes
    assert "not defined" in axes.texts[0].get_text()


def test_the_epochs_at_which_the_share_crosses_one_half_are_marked(run_record):
    epochs = run_record(20, epsilon=lambda t: (-1 + 3 * t,)).select("train")
    share = [e.metrics["first_term_share"] for e in epochs]
    after = next(i for i, value in enumerate(share) if value >= 0.5)
    expected = after - 1 + (0.5 - share[after - 1]) / (share[after] - share[after - 1])
    (axes,) = share_figure(epochs).axes
    drawn = labelled(axes)
    np.testing.assert_allclose(drawn["train"].get_ydata(), 100 * np.array(share))
    mark = drawn[f"crosses 50 % at epoch {expected:.1f}"]
    np.testing.assert_allclose(mark.get_data(), [[expected], [50.0]])


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([0, 100], [0.5]),
        ([100, 0], [0.5]),
        ([50, 50, 50], []),
        ([0, 50, 100], [1.0]),
        ([0, 100, 0], [0.5, 1.5]),
        ([0, math.nan, 100], []),
        ([60, 70, 80], []),
        ([10], []),
        ([], []),
    ],
)
def test_crossings_are_interpolated_and_never_across_a_gap(y, expected):
    assert crossings(range(len(y)), y, 50) == expected


def test_epochs_in_which_nothing_was_recorded_do_not_move_the_others(run_record):
    epochs = run_record(7).select("train")[::3]
    axes = terms_figure(epochs).axes[0]
    np.testing.assert_array_equal(labelled(axes)["term 1"].get_data().edges, [-0.5, 1.5, 4.5, 6.5])
    np.testing.assert_array_equal(labelled(axes)["base loss (ε = 0)"].get_xdata(), [0, 3, 6])
