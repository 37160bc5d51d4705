"""Every command of the README runs; tests/test_project.py runs its Python and YAML."""

import re
import shlex
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
COMMANDS = [line.rpartition("&& ")[2] for line in LINES if "polyloss " in line]
QUICK = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.limit_train_batches=2"]


def test_every_line_is_a_command_that_is_tested():
    tested = {"fit", "test", "predict", "search"}
    assert {shlex.split(command)[1] for command in COMMANDS} == tested
    assert all("polyloss " in line or line == "python -m pip install nox && python -m nox" for line in LINES)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("images")
    for part in ("train", "val", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for number in range(4):
                Image.effect_noise((8, 8), 64).save(root / part / name / f"{number}.png")
    return root


def test_the_commands_run_one_after_the_other(images, tmp_path, monkeypatch, capsys):
    from polyloss_lightning.cli import main

    monkeypatch.chdir(tmp_path)
    values = {"FOLDER": str(images), "NEW": str(images / "test")}
    for command in COMMANDS:
        _, subcommand, *arguments = shlex.split(command)
        if subcommand == "search":
            continue
        if "FILE" in arguments:
            values["FILE"] = str(max(tmp_path.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime))
        quick = QUICK[:2] if subcommand != "fit" else QUICK
        main([subcommand, *(values.get(argument, argument) for argument in arguments), *quick])
    assert "predictions.csv" in capsys.readouterr().out


def test_the_search_plans_what_the_readme_says(tmp_path, monkeypatch, capsys):
    from polyloss_lightning.cli import main

    monkeypatch.chdir(tmp_path)
    (command,) = (command for command in COMMANDS if command.startswith("polyloss search"))
    main([*shlex.split(command)[1:], "--dry_run"])
    printed = capsys.readouterr().out
    assert all(f"epsilon {epsilon}" in printed for epsilon in ("-1", "-0.5", "1", "2", "4"))
