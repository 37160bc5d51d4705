"""The commands, with one real search of two epochs."""

import csv
import json
import re
import shlex
import sys

import pytest
import yaml

from polyloss_lightning.cli import main, search_configs
from polyloss_lightning.cli.search import search
from polyloss_lightning.cli.search_configs import ConfigObjective, resolve
from polyloss_lightning.search import Answer, engine, outcome
from polyloss_lightning.search.config import with_epsilon
from polyloss_lightning.search.fit_command import FitCommand
from polyloss_lightning.search.plan import Pair
from polyloss_lightning.search.sentence import Unit

TINY = ["--config", "digits_longtail", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
OPTIONS = ["--epsilon", "0", "2", "--learning_rate_factors", "2", "--explore_seeds", "1", "--confirm_seeds", "2"]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["polyloss"])


def test_a_search_from_config_to_page(tmp_path, capfd):
    search([*TINY, *OPTIONS, "--workers", "1"])
    output = capfd.readouterr().out
    assert "3 settings, 9 runs, 1 at a time" in output
    assert "train without its EpsilonScheduler" in output
    assert "about " in output
    assert output.count("\n[") == 9
    assert re.search(r"epsilon 2, picked on seed 0,? .* cross-entropy", output)
    header = next(line for line in output.splitlines() if line.startswith("setting"))
    assert re.split("  +", header.strip())[2:] == [
        *("mean (%)", "sd", "seeds", "gain of the pick", "head recall", "middle recall", "tail recall"),
        "calibration error (%)",
    ]
    folder = tmp_path / "polyloss_search" / "digits_longtail"
    assert not list((folder / "runs").glob("scratch-*"))

    pick = yaml.safe_load((folder / "pick.yaml").read_text())
    assert pick["model"]["init_args"]["loss_fn"]["init_args"]["epsilon"] == 2.0
    main(["fit", "--config", str(folder / "pick.yaml"), "--trainer.fast_dev_run", "true"])

    main(["report", str(folder)])
    page = (folder / "report.html").read_text()
    assert "epsilon 2, picked on seed 0" in page
    assert page.count("<svg role=") >= 6
    assert not re.search(r'(src|href)="https?:', page)
    rows = list(csv.DictReader((folder / "runs.csv").read_text().splitlines()))
    assert len(rows) == 9
    confirmed = [row for row in rows if row["phase"] == "confirm"]
    assert {row["metric"] for row in confirmed} == {"test/balanced_accuracy"}
    assert all(row["value"] == row["test/balanced_accuracy"] for row in confirmed)
    errors = [float(row["test/calibration_error"]) for row in confirmed if row["setting"] == "epsilon 2"]
    assert "Expected calibration error" in page
    assert all(re.search(r"calibration error \(%\)", text) for text in (page, output))
    (line,) = [line for line in output.splitlines() if re.match("epsilon 2 +confirm", line)]
    assert float(line.split()[-1]) == pytest.approx(100 * sum(errors) / len(errors), abs=0.06)
    assert all(row["test/balanced_accuracy"] == "" for row in rows if row["phase"] == "explore")

    with pytest.raises(SystemExit, match="made with other settings") as error:
        search([*TINY, *OPTIONS, "--data.batch_size", "16"])
    assert "+    batch_size: 16" in str(error.value)


def test_dry_run_prints_settings_and_runs_and_writes_nothing(tmp_path, capsys):
    search([*TINY, "--dry_run"])
    output = capsys.readouterr().out
    assert "10 settings, 60 runs" in output
    assert "epsilon 0, learning rate x 0.5" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--monitor", "val/loss"], "must not move with epsilon"),
        (["--vary", "gamma"], "must be KEY=VALUE"),
        (["--seed_key", "data.split"], "must be a path in the config"),
        (["--max_time", "soon"], "must be HH:MM:SS, got 'soon'"),
        (["--ckpt_path", "last.ckpt"], "remove `ckpt_path`"),
        (["--vary", "data.init_args.batch_size=[1"], "`vary` must be KEY=VALUE with a value in YAML, got 'data.init"),
        (["--confirm_seeds", "1"], "`confirm_seeds` must be at least 2, got 1"),
        (["--workers", "0"], "`workers` must be at least 1, got 0"),
        (["--learning_rate_factors", "0"], "`learning_rate_factors` must be finite and above 0, got 0"),
        (["--epsilon", "nan"], "`epsilon` must be finite, got nan"),
    ],
)
def test_mistakes_are_reported_in_one_line_before_anything_runs(options, message):
    with pytest.raises(SystemExit, match=message) as error:
        search([*TINY, "--dry_run", *options])
    assert re.fullmatch("polyloss search: .*", str(error.value))


@pytest.fixture
def jobs(monkeypatch):
    """Takes the jobs of searches that are not run."""
    jobs = []

    def run_search(job, **options):
        jobs.append(job)
        return Answer("", (), (), None, Unit("", False), {})

    monkeypatch.setattr(engine, "run_search", run_search)
    monkeypatch.setattr(search_configs, "check_learning_rates", lambda configs: None)
    return jobs


def test_the_last_line_is_a_command_and_the_one_in_the_report_has_no_password(jobs, capsys):
    url = "postgresql://me:secret@server/name"
    search([*TINY, "--study", "my study", "--storage", url])
    last = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(last) == ["report:", "polyloss", "report", "my study", "--storage", url]
    assert jobs[0].plan.command.endswith("--study 'my study' --storage postgresql://me:***@server/name")


def test_a_study_that_is_a_file_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(search_configs, "check_learning_rates", lambda configs: None)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"^polyloss search: .*File exists: 'file'$"):
        search([*TINY, "--study", "file"])


def test_a_report_needs_a_study():
    with pytest.raises(SystemExit, match="polyloss report: there is no study 'nothing'"):
        main(["report", "nothing"])


def test_the_same_seed_gives_every_setting_the_same_start_and_another_seed_another_split(tmp_path):
    objective = ConfigObjective(tmp_path, ["data.init_args.seed"])
    config = resolve(TINY)
    first, second = (objective(with_epsilon(config, epsilon), 3) for epsilon in (0.0, 2.0))
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert one.equal(other)
    assert first.data.train_subset.indices == second.data.train_subset.indices
    assert first.data.train_subset.indices != objective(config, 4).data.train_subset.indices


@pytest.mark.slow
def test_a_trainer_with_several_processes_runs_as_a_command(tmp_path):
    config = resolve([*TINY, "--trainer.strategy", "ddp", "--trainer.devices", "1", "--trainer.accelerator", "cpu"])
    objective = ConfigObjective(tmp_path, ["data.init_args.seed"])
    assert isinstance(objective(config, 0), FitCommand)
    done = outcome.execute(objective, config, Pair("confirm", "epsilon 0", 0), "val/balanced_accuracy")
    assert done.metric == "test/balanced_accuracy"
    assert 0 <= done.value <= 1
    assert len(done.history["val/balanced_accuracy"]) == 1
    json.dumps(done.metrics)
