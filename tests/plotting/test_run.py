import dataclasses
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from polyloss_lightning.plotting import commands, curve_figures, run_figures

NAMES = ["loss_and_gradient", "coefficients", "terms", "first_term_share", "pt_histogram"]
COUNTS = [50, 20, 5, 1]


def test_a_run_has_one_figure_of_each_kind(run_record):
    assert list(run_figures(run_record(3))) == NAMES
    assert list(run_figures(run_record(3, counts=COUNTS))) == [*NAMES, "classes"]


def test_an_empty_record_has_no_figures(run_record):
    assert run_figures(run_record(0)) == {}


def test_several_losses_have_a_set_each_with_their_path(run_record):
    figures = run_figures(run_record(2, losses=("head.loss_fn", "aux.0.loss_fn")))
    assert list(figures) == [f"{loss}/{name}" for loss in ("head.loss_fn", "aux.0.loss_fn") for name in NAMES]
    for name, figure in figures.items():
        assert name.split("/")[0] in figure.get_suptitle()


def test_a_loss_without_the_stage_is_drawn_for_another_stage(run_record):
    record = run_record(1, stages=("test",))
    assert "(test)" in run_figures(record)["pt_histogram"].get_suptitle()
    both = run_record(2)
    assert "(val)" in run_figures(both, stage="val")["pt_histogram"].get_suptitle()
    assert "(train)" in run_figures(both)["pt_histogram"].get_suptitle()


def test_the_last_record_of_an_epoch_counts(run_record):
    record = run_record(2, stages=("train",))
    repeated = dataclasses.replace(record.epochs[1], step=99, metrics={**record.epochs[1].metrics, "loss": 7.0})
    figures = run_figures(dataclasses.replace(record, epochs=[*record.epochs, repeated]))
    handles, labels = figures["terms"].axes[0].get_legend_handles_labels()
    loss = handles[labels.index("loss (train)")].get_data().values
    np.testing.assert_allclose(loss, [record.epochs[0].metrics["loss"], 7.0])


def test_classes_are_those_of_the_epochs_that_have_them(run_record):
    record = run_record(3, counts=COUNTS, stages=("train",))
    record.epochs[2] = dataclasses.replace(record.epochs[2], classes=None)
    assert "epoch 1" in run_figures(record)["classes"].get_suptitle()


def test_drawing_leaves_pyplot_and_its_settings_alone(run_record):
    before, open_figures = dict(mpl.rcParams), plt.get_fignums()
    run_figures(run_record(2, counts=COUNTS))
    curve_figures()
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == open_figures


def test_missing_matplotlib_is_an_error_that_names_the_extra(run_record, monkeypatch):
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    for draw in (curve_figures, lambda: run_figures(run_record(1, counts=COUNTS))):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'polyloss-lightning\[cli\]'"):
            draw()
    with pytest.raises(SystemExit, match=r"polyloss plot curves: .*polyloss-lightning\[cli\]"):
        commands.curves()
