"""Local paths that fsspec would take for something else."""

import pytest

from polyloss_lightning import _files
from polyloss_lightning.callbacks import PolynomialTermMonitor
from polyloss_lightning.record import read_record


def test_two_colons_in_a_local_path_are_part_of_its_name(observed, make_trainer, tmp_path):
    folder = tmp_path / "a::b"
    monitor = PolynomialTermMonitor(figures=True)
    make_trainer(callbacks=[monitor], max_epochs=1, default_root_dir=folder).fit(observed())
    assert [path.name for path in tmp_path.iterdir()] == ["a::b"]
    assert len(read_record(folder).epochs) == 2
    assert (folder / "figures" / "terms.png").exists()


@pytest.mark.parametrize("text", ["file://{}/x", "~/x", "{}/x", "~/a::b/../x", "{}/a::b/../x"])
def test_local_paths_may_have_a_scheme_or_a_tilde(tmp_path, monkeypatch, text):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = text.format(tmp_path)
    _files.write(path, b"data")
    assert (tmp_path / "x").read_bytes() == b"data"
    assert _files.is_local(path)
    assert not _files.is_local("memory://x")
