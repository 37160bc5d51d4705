import dataclasses
import math

import numpy as np
import pytest

from polyloss_lightning._class_groups import head_middle_tail
from polyloss_lightning.plotting.classes import classes_figure

COUNTS = [7, 400, 30, 90, 200, 12, 3, 55]


def bars(axes):
    """Heights of the bars of each group, from left to right."""
    handles, labels = axes.get_legend_handles_labels()
    groups = {}
    for handle, label in zip(handles, labels, strict=True):
        if label.endswith("classes"):
            groups[label.removesuffix(" classes")] = np.asarray(handle.get_data().values)[::2]
    return groups


@pytest.fixture
def ends(run_record):
    start, *_, end = run_record(5, counts=COUNTS, stages=("train",)).epochs
    return start.classes, end.classes


def test_bars_go_from_the_most_to_the_least_frequent_class_in_thirds(ends):
    _, end = ends
    figure = classes_figure(None, end, COUNTS)
    for axes, values in zip(
        figure.axes,
        (end.pt, 100 * np.array(end.first_term_share), end.first_term_gradient),
        strict=True,
    ):
        drawn = bars(axes)
        assert list(drawn) == ["head", "middle", "tail"]
        for name, members in head_middle_tail(COUNTS).items():
            np.testing.assert_allclose(drawn[name], [values[index] for index in members])
    names = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert names == ["1", "4", "3", "7", "2", "5", "0", "6"]


def test_first_epoch_and_training_frequency_are_marked(ends):
    start, end = ends
    order = np.argsort(COUNTS)[::-1]
    axes = classes_figure(start, end, COUNTS).axes[-1]
    first, frequency = axes.get_lines()
    np.testing.assert_allclose(first.get_ydata(), np.array(start.first_term_gradient)[order])
    np.testing.assert_allclose(frequency.get_ydata(), np.array(COUNTS)[order] / sum(COUNTS))


def test_without_counts_the_classes_keep_their_own_order_in_one_group(ends):
    _, end = ends
    figure = classes_figure(None, end, None)
    (drawn,) = bars(figure.axes[0]).values()
    np.testing.assert_allclose(drawn, end.pt)
    assert figure.axes[-1].get_xlabel() == "class"


def test_a_class_without_weight_is_a_gap(ends):
    _, end = ends
    pt = (math.nan, *end.pt[1:])
    figure = classes_figure(None, dataclasses.replace(end, pt=pt), COUNTS)
    assert sum(np.isnan(values).sum() for values in bars(figure.axes[0]).values()) == 1


@pytest.mark.parametrize("num_classes", [1, 2, 3, 10, 30, 31, 61, 1000])
def test_any_number_of_classes_has_as_many_bars_and_a_bounded_number_of_artists(run_record, num_classes):
    counts = list(range(num_classes, 0, -1))
    (epoch,) = run_record(1, counts=counts, stages=("train",)).epochs
    axes = classes_figure(epoch.classes, epoch.classes, counts).axes[0]
    np.testing.assert_allclose(np.concatenate(list(bars(axes).values())), epoch.classes.pt)
    assert len(axes.patches) <= 3
    assert len(axes.get_xticks()) <= 32


def test_class_names_are_shortened_and_keep_clear_of_each_other(ends, texts_keep_clear):
    _, end = ends
    names = [f"species {index} of bird" for index in range(8)]
    figure = classes_figure(None, end, COUNTS, "classes", names)
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()][:2] == [
        "species 1 of bi…",
        "species 4 of bi…",
    ]
    texts_keep_clear({"classes": figure})
