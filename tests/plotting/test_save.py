import math
import os
from pathlib import Path

import numpy as np
import pytest

from polyloss_lightning import _files
from polyloss_lightning.plotting import commands, curve_figures, run_figures, save_figures, save_run_figures
from polyloss_lightning.record import RecordWriter, read_record

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def log_dir(tmp_path, run_record):
    record = run_record(3, epsilon=lambda t: (-1.5 + 2 * t,))
    RecordWriter(tmp_path, append=False).write(record.epochs, record.class_counts)
    return tmp_path


def test_figures_are_png_files_of_their_names(tmp_path):
    paths = save_figures(curve_figures(), tmp_path / "new" / "folder")
    assert paths == [str(tmp_path / "new" / "folder" / name) for name in ("loss_and_gradient.png", "coefficients.png")]
    assert all(_files.read(path).startswith(PNG) for path in paths)


def test_the_path_of_a_loss_stays_one_file_name(tmp_path):
    (figure, _) = curve_figures().values()
    (path,) = save_figures({"model.head/rpn.py:12 loss/terms": figure}, tmp_path)
    assert path == str(tmp_path / "model.head-rpn.py-12-loss-terms.png")


def test_a_run_is_drawn_from_its_folder_or_its_file(log_dir, tmp_path):
    from_folder = save_run_figures(log_dir)
    assert {os.path.dirname(path) for path in from_folder} == {str(log_dir / "figures")}
    assert len(from_folder) == 5
    from_file = save_run_figures(str(log_dir / "poly_terms.jsonl"), str(tmp_path / "elsewhere"))
    assert from_file == [str(tmp_path / "elsewhere" / os.path.basename(path)) for path in from_folder]


def test_a_null_in_the_record_is_a_gap_in_the_figure(log_dir):
    (axes,) = run_figures(read_record(log_dir))["first_term_share"].axes
    handles, labels = axes.get_legend_handles_labels()
    share = handles[labels.index("train")].get_ydata()
    assert math.isnan(share[0])
    assert np.isfinite(share[1:]).all()


def test_a_record_without_epochs_writes_no_files(tmp_path):
    RecordWriter(tmp_path, append=False).write([], [1, 2])
    assert save_run_figures(tmp_path) == []
    assert not (tmp_path / "figures").exists()
    with pytest.raises(SystemExit, match="contains no epoch yet"):
        commands.run(str(tmp_path))


def test_commands_print_the_files_that_they_wrote(log_dir, tmp_path, capsys):
    commands.curves(gamma=2.0, epsilon=[-1, 1], out_dir=str(tmp_path / "curves"))
    commands.run(str(log_dir))
    written = capsys.readouterr().out.split()
    assert len(written) == 2 + 5
    assert sorted(written) == sorted(map(str, [*log_dir.glob("figures/*.png"), *tmp_path.glob("curves/*.png")]))


def test_commands_report_in_one_line_why_nothing_was_drawn(tmp_path):
    with pytest.raises(SystemExit, match=r"polyloss plot run: no record .*PolynomialTermMonitor") as error:
        commands.run(str(tmp_path))
    assert "\n" not in str(error.value)
    (tmp_path / "poly_terms.jsonl").write_text("no record\n")
    with pytest.raises(SystemExit, match=r"polyloss plot run: .*is not a record"):
        commands.run(str(tmp_path))
    with pytest.raises(SystemExit, match="polyloss plot curves: `gamma` must be"):
        commands.curves(gamma=-1.0)
    with pytest.raises(SystemExit, match="polyloss plot curves: "):
        commands.curves(out_dir=str(tmp_path / "poly_terms.jsonl"))


@pytest.mark.parametrize("source", [str, Path, read_record])
def test_a_run_is_drawn_in_one_call(log_dir, source):
    figures = run_figures(source(log_dir))
    assert len(figures) == 5
    assert "terms" in figures


def test_a_notebook_shows_every_figure(log_dir):
    shown = run_figures(log_dir)._repr_html_()
    assert shown.count('<img src="data:image/png;base64,iVBORw0KGgo') == 5
    assert 'alt="terms"' in shown


def test_a_run_at_a_url_is_drawn_there(run_record):
    url = "memory://test_save/run"
    record = run_record(2)
    RecordWriter(url, append=False).write(record.epochs)
    assert save_run_figures(f"{url}/poly_terms.jsonl")[0] == f"{url}/figures/loss_and_gradient.png"
    assert _files.read(f"{url}/figures/terms.png").startswith(PNG)
