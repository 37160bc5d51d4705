import pytest

from polyloss_lightning.plotting import curve_figures, run_figures


@pytest.mark.parametrize(
    ("num_epochs", "options"),
    [
        (1, {"counts": [50, 20, 5, 1]}),
        (40, {"epsilon": lambda t: (-1 + 3 * t,), "gamma": 2.0, "counts": list(range(100, 0, -1))}),
        (12, {"epsilon": lambda t: tuple((-1) ** j * (0.11 + t) for j in range(8)), "counts": list(range(30, 0, -1))}),
        (3, {"epsilon": lambda t: (-2.0,), "counts": [3, 2]}),
        (200, {"num_terms": 2, "losses": ("model.roi_heads.box_predictor.classification_loss", "b")}),
    ],
    ids=["one epoch", "annealed focal, 100 classes", "Poly-8, 30 classes", "below -1", "200 epochs, two losses"],
)
def test_axes_are_labelled_and_no_text_is_cut_or_overlaps_another(run_record, texts_keep_clear, num_epochs, options):
    texts_keep_clear(run_figures(run_record(num_epochs, stages=("train",), **options)))


def test_texts_of_the_curves_keep_clear_of_each_other(texts_keep_clear):
    texts_keep_clear(curve_figures(0.5, [-1, -0.5, 0, 0.25, 0.5, 1, 2, 4]))
