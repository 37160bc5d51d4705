import math

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from polyloss_lightning.plotting import reliability_figure

BINS = [[0, 10, 30], [0.0, 5.0, 27.0], [0, 6, 21]]


def bars(axes, label):
    (steps,) = [patch for patch in axes.patches if patch.get_label() == label]
    return steps.get_data()


def test_bars_are_the_share_of_right_predictions_and_reach_to_their_mean_probability():
    figure = reliability_figure(torch.tensor(BINS))
    diagram, histogram = figure.axes
    observed, gap = bars(diagram, "observed"), bars(diagram, "gap to the predicted probability")
    np.testing.assert_allclose(observed.values, [math.nan, 60, 70])
    np.testing.assert_allclose(gap.values, [math.nan, 50, 90])
    np.testing.assert_allclose(gap.baseline, observed.values)
    np.testing.assert_allclose(observed.edges, [0, 100 / 3, 200 / 3, 100])
    np.testing.assert_allclose(histogram.patches[0].get_data().values, [0, 25, 75])


def test_the_title_has_the_expected_calibration_error():
    title = reliability_figure(BINS).get_suptitle()
    # (10 * |0.5 - 0.6| + 30 * |0.9 - 0.7|) / 40
    assert title == "Reliability of 40 predictions, expected calibration error 17.5 %"
    assert reliability_figure(torch.zeros(3, 4)).get_suptitle() == "Reliability of 0 predictions"
    assert reliability_figure(BINS, "mine").get_suptitle() == "mine"


@pytest.mark.parametrize("bins", [BINS, torch.zeros(3, 15), torch.rand(3, 100) * 1e6])
def test_no_text_is_cut_or_overlaps_another(bins, texts_keep_clear):
    figure = reliability_figure(bins)
    texts_keep_clear({"reliability": figure})
    FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize(
    ("bins", "named"),
    [
        ([[1.0]], r"shape \(3, B\), got \[1, 1\]"),
        ([[], [], []], r"shape \(3, B\), got \[3, 0\]"),
        ([[1.0], [2.0, 3.0], [1.0]], r"`bins` must have shape \(3, B\): "),
        ([[1.0], [-0.5], [1.0]], "at least 0"),
        ([[1.0], [math.nan], [1.0]], "finite"),
    ],
)
def test_other_contents_are_an_error(bins, named):
    with pytest.raises(ValueError, match=named):
        reliability_figure(bins)
