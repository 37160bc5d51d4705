"""What the project promises about itself: one command each to run and to test, the same everywhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEST_COMMAND = "python -m pip install nox && python -m nox"


def code_lines(path: str) -> list[str]:
    return [line.strip() for line in (ROOT / path).read_text().splitlines()]


def test_ci_calls_the_test_command_of_the_readme():
    assert TEST_COMMAND in code_lines("README.md")
    assert TEST_COMMAND in code_lines(".ci/run")


def test_every_version_bound_has_a_reason():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    bounds = [line for line in lines if re.search(r'"[a-z_.-]+(\[[a-z-]+\])?>=', line) and "nox" not in line]
    assert len(bounds) > 6
    position = {line: number for number, line in enumerate(lines)}
    for line in bounds:
        assert "#" in line or lines[position[line] - 1].strip().startswith("#"), line


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_trains(config, tmp_path, monkeypatch):
    from polyloss_lightning.cli import PolyLossCLI

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["polyloss", "fit", "--config", str(config), "--trainer.fast_dev_run", "true"])
    cli = PolyLossCLI()
    assert cli.trainer.global_step == 1
