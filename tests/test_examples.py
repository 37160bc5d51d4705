"""Every example script runs, and warns of nothing (warnings are errors here)."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_with_fast_dev_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(fast_dev_run=True)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_has_fewer_than_80_lines(path):
    assert len(path.read_text().splitlines()) < 80


def test_the_example_for_torchrun_runs_in_two_processes(tmp_path):
    path = next(path for path in EXAMPLES if path.stem == "ddp_torchrun")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(path), "--fast_dev_run"]
    result = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("2 processes: {") == 1
