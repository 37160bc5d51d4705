import dataclasses

import numpy as np
import pytest

from polyloss_lightning.plotting.distribution import pt_histogram_figure


@pytest.mark.parametrize(("num_epochs", "shown"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (40, [0, 20, 39])])
def test_histograms_of_start_middle_and_end_are_percent_of_the_weight(run_record, num_epochs, shown):
    epochs = run_record(num_epochs).select("train")
    (axes,) = pt_histogram_figure(epochs).axes
    handles, labels = axes.get_legend_handles_labels()
    drawn = dict(zip(labels, handles, strict=True))
    assert set(drawn) == {f"epoch {number}" for number in shown}
    for number in shown:
        data = drawn[f"epoch {number}"].get_data()
        bins = np.array(epochs[number].pt_histogram)
        np.testing.assert_allclose(data.values, 100 * bins / bins.sum())
        np.testing.assert_allclose(data.edges, np.linspace(0, 1, 51))
    last = drawn[f"epoch {shown[-1]}"]
    assert last.get_linestyle() == "-"


def test_an_epoch_without_targets_is_drawn_as_nothing(run_record):
    (epoch,) = run_record(1, stages=("train",)).epochs
    (axes,) = pt_histogram_figure([dataclasses.replace(epoch, pt_histogram=[0.0] * 50)]).axes
    assert not np.any(axes.patches[0].get_data().values)
