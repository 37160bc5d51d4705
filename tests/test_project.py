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


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_of_the_readme_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_of_the_readme_trains(text, tmp_path, monkeypatch):
    from polyloss_lightning.cli import PolyLossCLI

    monkeypatch.chdir(tmp_path)
    (tmp_path / "readme.yaml").write_text(text)
    config = str(ROOT / "configs" / "digits_longtail.yaml")
    options = ["--config", config, "--config", "readme.yaml", "--trainer.fast_dev_run=true"]
    monkeypatch.setattr("sys.argv", ["polyloss", "fit", *options])
    trainer = PolyLossCLI().trainer
    assert trainer.global_step == 1
    assert trainer.callback_metrics["poly/epsilon"] == 2  # the only step is the last one, too


def test_figures_of_the_readme_are_there():
    figures = re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text())
    assert figures
    assert all((ROOT / figure).is_file() for figure in figures)


def test_every_version_bound_has_a_reason():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    bounds = [line for line in lines if re.search(r'"[a-z_.-]+(\[[a-z-]+\])?>=', line) and "nox" not in line]
    assert len(bounds) > 6
    position = {line: number for number, line in enumerate(lines)}
    for line in bounds:
        assert "#" in line or lines[position[line] - 1].strip().startswith("#"), line


CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_starts_with_three_lines_on_what_it_is_for_and_what_to_change(config):
    lines = config.read_text().splitlines()
    assert all(line.startswith("# ") for line in lines[:3])
    assert not lines[3].startswith("#")
    assert "To change: " in "\n".join(lines[:3])
