from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from polyloss_lightning.plotting import curve_figures, run_figures


def visible_texts(figure):
    """Text and box of all that is drawn as text: title, legend, axis labels and the tick labels within the view."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = [figure._suptitle, *figure.legends]
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis, low, high in ((axes.xaxis, axes.bbox.x0, axes.bbox.x1), (axes.yaxis, axes.bbox.y0, axes.bbox.y1)):
            place = 0 if axis is axes.xaxis else 1
            for label in axis.get_ticklabels():
                at = label.get_transform().transform(label.get_position())[place]
                if low - 0.01 <= at <= high + 0.01:  # those beyond are there, and not drawn
                    texts.append(label)
    boxes = [(text, text.get_window_extent(renderer)) for text in texts if text.get_visible()]
    return [(text, box) for text, box in boxes if box.width * box.height > 0]


def check(figures):
    for name, figure in figures.items():
        figure.set_dpi(100)
        assert figure.axes[-1].get_xlabel(), name
        assert all(axes.get_ylabel() for axes in figure.axes), name
        found = visible_texts(figure)
        assert len(found) > 8
        for text, box in found:
            assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= -1, (name, text)
        for (text, box), (other, other_box) in combinations(found, 2):
            wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert min(wide, high) <= 1, (name, text, other)


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
def test_axes_are_labelled_and_no_text_leaves_the_figure_or_meets_another(run_record, num_epochs, options):
    check(run_figures(run_record(num_epochs, stages=("train",), **options)))


def test_texts_of_the_curves_keep_clear_of_each_other():
    check(curve_figures(0.5, [-1, -0.5, 0, 0.25, 0.5, 1, 2, 4]))
