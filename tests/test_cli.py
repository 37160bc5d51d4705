import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from polyloss_lightning.shipped_configs import config_dir, config_names, resolve_config


def polyloss(*arguments: str, cwd: Path, module: bool = True) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).parent / "polyloss"
    command = [sys.executable, "-m", "polyloss_lightning"] if module else [str(script)]
    return subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One real fit of the shipped config, shortened, and where it ran."""
    folder = tmp_path_factory.mktemp("run")
    result = polyloss("fit", "--config", "digits_longtail", "--trainer.max_epochs", "3", cwd=folder, module=False)
    assert result.returncode == 0, result.stderr
    return folder, result


def test_fit_closes_with_a_table_and_the_paths_of_what_it_wrote(run):
    folder, result = run
    for name in ("balanced_accuracy", "macro_f1", "cross_entropy", "pt", "recall"):
        assert f"val/{name}" in result.stdout
    assert "training samples" in result.stdout
    written = dict(line.split(": ", 1) for line in result.stdout.splitlines() if line.count(": ") == 1)
    for name in ("checkpoint", "CSVLogger", "TensorBoardLogger", "figures"):
        assert (folder / written[name]).exists()
    assert (folder / written["CSVLogger"] / "metrics.csv").is_file()


def test_fit_warns_of_nothing(run):
    _, result = run
    assert "Warning" not in result.stderr + result.stdout


def test_the_table_of_the_test_part_comes_from_the_checkpoint(run):
    folder, _ = run
    checkpoint = next(folder.rglob("*.ckpt"))
    result = polyloss("test", "--config", "digits_longtail", "--ckpt_path", str(checkpoint), cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "test part" in result.stdout
    assert "test/balanced_accuracy" in result.stdout


def test_help_names_the_subcommands_and_the_shipped_configs(tmp_path):
    result = polyloss("--help", cwd=tmp_path)
    assert result.returncode == 0
    for word in ("fit", "validate", "test", "predict", "digits_longtail"):
        assert word in result.stdout


def test_fit_help_explains_the_options(tmp_path):
    result = polyloss("fit", "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "Stop training once this number of epochs is reached" in " ".join(result.stdout.split())


def test_print_config_is_a_config(tmp_path):
    result = polyloss("fit", "--config", "digits_longtail", "--print_config", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert yaml.safe_load(result.stdout)["model"]["class_path"].endswith("ImageClassifier")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--trainer.max_epoch", "3"], "max_epoch"),
        (["--model.init_args.loss_fn.init_args.epsilom", "1"], "epsilom"),
        (["--model.init_args.loss_fn", "polyloss_lightning.losses.Poly1CrossEntropyLos"], "Poly1CrossEntropyLos"),
        (["--model.init_args.loss_fn.init_args.epsilon", ".nan"], "`epsilon` must be finite"),
        (["--model.init_args.loss_fn.init_args.label_smoothing", "1.5"], "`label_smoothing` must be in [0, 1]"),
    ],
)
def test_a_mistake_gives_one_error_and_no_traceback(tmp_path, arguments, named):
    result = polyloss("fit", "--config", "digits_longtail", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert named in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_config_name_lists_the_shipped_ones(tmp_path):
    result = polyloss("fit", "--config", "digits_longtai", cwd=tmp_path)
    assert result.returncode != 0
    assert "digits_longtai" in result.stderr
    assert "digits_longtail" in result.stderr
    assert "Traceback" not in result.stderr


def test_plot_draws_curves_and_a_run(run, tmp_path):
    folder, _ = run
    curves = polyloss("plot", "curves", "--gamma", "2", "--epsilon", "[-1, 0, 1]", "--out_dir", "out", cwd=tmp_path)
    assert curves.returncode == 0, curves.stderr
    log_dir = next(folder.rglob("poly_terms.jsonl")).parent
    drawn = polyloss("plot", "run", str(log_dir), "--out_dir", str(tmp_path / "of_run"), cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    for result in (curves, drawn):
        paths = [tmp_path / line for line in result.stdout.split() if line.endswith(".png")]
        assert paths
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_plot_of_a_folder_without_a_record_is_one_clear_error(tmp_path):
    result = polyloss("plot", "run", str(tmp_path), cwd=tmp_path)
    assert result.returncode != 0
    assert "poly_terms.jsonl" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_wins_over_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits_longtail").touch()
    assert resolve_config("digits_longtail") == "digits_longtail"


def test_names_and_paths_of_the_shipped_configs():
    assert "digits_longtail" in config_names()
    assert all((config_dir() / f"{name}.yaml").is_file() for name in config_names())
    assert Path(resolve_config("digits_longtail")).is_file()
    assert resolve_config("folder/own.yaml") == "folder/own.yaml"
    with pytest.raises(ValueError, match="no config is named 'nothing'"):
        resolve_config("nothing")
