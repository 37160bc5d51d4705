import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from polyloss_lightning.plotting import confusion_matrix_figure


def words(number):
    return [f"class number {index} of a long name" for index in range(number)]


def test_rows_are_percentages_of_the_true_class_and_cells_show_the_counts():
    figure = confusion_matrix_figure(torch.tensor([[30, 10], [0, 5]]), ["cat", "dog"])
    axes, bar = figure.axes
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25], [0, 100]])
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "30", (1, 0): "10", (1, 1): "5"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert "(%)" in bar.get_ylabel()


def test_counts_are_readable_on_dark_and_on_light_cells():
    axes = confusion_matrix_figure([[90, 2], [0, 5]]).axes[0]
    colours = {text.get_text(): to_rgba(text.get_color())[:3] for text in axes.texts}
    assert colours == {"90": (1, 1, 1), "2": (0, 0, 0), "5": (1, 1, 1)}


@pytest.mark.parametrize(("number", "texts"), [(20, 20), (21, 0), (1000, 0)])
def test_there_are_no_counts_above_20_classes(number, texts):
    assert len(confusion_matrix_figure(torch.eye(number)).axes[0].texts) == texts


def test_above_100_classes_the_axes_show_some_indices():
    axes = confusion_matrix_figure(torch.eye(1000), words(1000)).axes[0]
    assert 2 <= len(axes.get_xticks()) <= 12


def test_a_class_without_samples_is_an_empty_row():
    image = confusion_matrix_figure([[4, 0], [0, 0]]).axes[0].images[0].get_array()
    assert np.isnan(np.ma.filled(image, np.nan)[1]).all()


def test_a_matrix_of_zeros_is_drawn():
    assert confusion_matrix_figure(torch.zeros(3, 3, dtype=torch.long)).get_suptitle() == "Confusion matrix"


@pytest.mark.parametrize(
    ("number", "names"), [(1, None), (2, words), (10, None), (20, words), (21, words), (100, words)]
)
def test_no_text_is_cut_or_overlaps_another(number, names, texts_keep_clear):
    matrix = torch.full((number, number), 12345) if number <= 10 else torch.eye(number) * 1.5e9
    texts_keep_clear({"confusion": confusion_matrix_figure(matrix, names and names(number))})


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        ([[1, 2]], None, r"shape \(C, C\).*got \[1, 2\]"),
        ([], None, r"shape \(C, C\)"),
        ([[1, 2], [3]], None, r"shape \(C, C\)"),
        ([[1, -2], [3, 4]], None, "at least 0"),
        ([[1, float("nan")], [3, 4]], None, "finite"),
        ([[1, 2], [3, 4]], ["a"], "one entry for each of the 2 classes, got 1"),
    ],
)
def test_what_is_no_confusion_matrix_is_an_error(matrix, names, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix_figure(matrix, names)


def test_names_with_formulas_and_line_breaks_are_plain_text():
    axes = confusion_matrix_figure([[1, 2], [3, 4]], ["a\nb", "$x^$"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a b", r"\$x^\$"]
