"""Every example script runs, and warns of nothing (warnings are errors here)."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_with_fast_dev_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load(path.stem).main(fast_dev_run=True)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_has_fewer_than_80_lines(path):
    assert len(path.read_text().splitlines()) < 80


@pytest.mark.parametrize("page", ["README.md", "docs/examples.md"])
def test_every_example_is_on_the_page(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES if f"examples/{path.name}" not in text] == []


@pytest.mark.slow
def test_the_example_for_torchrun_runs_in_two_processes(tmp_path):
    path = next(path for path in EXAMPLES if path.stem == "ddp_torchrun")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(path), "--fast_dev_run"]
    result = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("2 processes: {") == 1
