import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from polyloss_lightning._shipped_configs import config_dir, config_names, resolve_config
from polyloss_lightning.cli import PolyLossCLI, main
from polyloss_lightning.cli.best_validation import BestValidation


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One real fit of the shipped config by the installed command, shortened, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    command = [str(Path(sys.executable).parent / "polyloss"), "fit", "--config", "digits_longtail"]
    result = subprocess.run(
        [*command, "--trainer.max_epochs", "3"], cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.fixture
def polyloss(tmp_path, monkeypatch, capsys):
    """Run the command in this process, in an empty folder; returns the exit status and what it printed."""
    monkeypatch.chdir(tmp_path)

    def polyloss(*arguments):
        capsys.readouterr()
        try:
            main(arguments)
        except SystemExit as exit_:
            # As the interpreter does: a text is printed, and the status is 1.
            out, error = capsys.readouterr()
            return (1, out, error + exit_.code) if isinstance(exit_.code, str) else (exit_.code or 0, out, error)
        return 0, *capsys.readouterr()

    return polyloss


def test_fit_ends_with_a_table_and_the_paths_of_its_files(run):
    folder, result = run
    for name in ("balanced_accuracy", "macro_f1", "cross_entropy", "pt"):
        assert f"val/{name}" in result.stdout
    for column in ("samples", "recall", "head (4", "tail (3"):
        assert column in result.stdout
    written = dict(line.split(": ", 1) for line in result.stdout.splitlines() if line.count(": ") == 1)
    for name in ("checkpoint", "CSVLogger", "TensorBoardLogger", "figures", "classes"):
        assert (folder / written[name]).exists()
    assert (folder / written["CSVLogger"] / "metrics.csv").is_file()


def test_the_progress_bar_has_loss_and_epsilon(run):
    _, result = run
    assert "train/loss_step" in result.stdout
    assert "poly/epsilon" in result.stdout


def test_fit_issues_no_warning(run):
    _, result = run
    assert "Warning" not in result.stderr + result.stdout


def test_the_table_of_the_test_part_comes_from_the_checkpoint(run, polyloss):
    folder, _ = run
    checkpoint = next(folder.rglob("*.ckpt"))
    code, out, _ = polyloss("test", "--config", "digits_longtail", "--ckpt_path", str(checkpoint))
    assert code == 0
    assert "test part" in out
    assert "test/balanced_accuracy" in out


def test_help_names_the_subcommands_and_the_shipped_configs(polyloss):
    code, out, _ = polyloss("--help")
    assert code == 0
    for word in ("fit", "validate", "test", "predict", *config_names()):
        assert word in out


def test_fit_help_explains_the_options(polyloss):
    code, out, _ = polyloss("fit", "--help")
    assert code == 0
    assert "Stop training once this number of epochs is reached" in " ".join(out.split())


def test_print_config_is_a_config(polyloss):
    code, out, _ = polyloss("fit", "--config", "digits_longtail", "--print_config")
    assert code == 0
    assert yaml.safe_load(out)["model"]["class_path"].endswith("ImageClassifier")


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("max_epochs: 40", "max_epoch: 40", "'trainer.max_epoch'"),
        ("epsilon: -1.0", "epsilom: -1.0", "'epsilom'"),
        ("losses.Poly1CrossEntropyLoss", "losses.Poly1CrossEntropyLos", "'Poly1CrossEntropyLos'"),
        ("polyloss_lightning.models.", "polyloss_lightning.model.", "polyloss_lightning.model"),
        ("epsilon: -1.0", "epsilon: .nan", "`epsilon` must be finite (the paper's range is -1 and above), got nan"),
        ("imbalance: 50.0", "imbalance: 0.5", "0.5"),
        ("num_terms: 3", "num_terms: 0", "`num_terms`"),
    ],
)
def test_a_mistake_is_reported_in_one_line(tmp_path, capsys, monkeypatch, right, wrong, named):
    text = Path(resolve_config("digits_longtail")).read_text()
    assert right in text
    (tmp_path / "wrong.yaml").write_text(text.replace(right, wrong))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["polyloss", "fit", "--config", "wrong.yaml"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert named in error
    assert len(error) < 400


def test_an_unknown_config_name_lists_the_shipped_ones(polyloss):
    code, _, error = polyloss("fit", "--config", "digits_longtai")
    assert code == 1
    assert "'digits_longtai'" in error
    assert "digits_longtail" in error


def test_plot_draws_curves_and_a_run(run, polyloss, tmp_path):
    folder, _ = run
    curves = polyloss("plot", "curves", "--gamma", "2", "--epsilon", "-1", "0", "1", "--out_dir", "out")
    log_dir = next(folder.rglob("poly_terms.jsonl")).parent
    drawn = polyloss("plot", "run", str(log_dir), "--out_dir", str(tmp_path / "of_run"))
    for code, out, _ in (curves, drawn):
        assert code == 0
        paths = [tmp_path / line for line in out.split() if line.endswith(".png")]
        assert paths
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_plot_of_a_folder_without_a_record_is_one_clear_error(polyloss, tmp_path):
    code, _, error = polyloss("plot", "run", str(tmp_path))
    assert code == 1
    assert "poly_terms.jsonl" in error


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


def test_the_table_is_that_of_the_best_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.max_epochs=5", "--trainer.enable_progress_bar=false"]
    monkeypatch.setattr("sys.argv", ["polyloss", "fit", "--config", "digits_longtail", *options])
    main()
    printed = capsys.readouterr().out
    assert "validation part, best checkpoint" in printed
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    (row,) = [line for line in printed.splitlines() if "val/balanced_accuracy" in line]
    assert float(row.split("│")[2]) == pytest.approx(float(checkpoint.stem.rpartition("=")[2]), abs=1e-3)


def test_a_module_in_the_working_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "own_network_of_the_user.py").write_text(
        "from polyloss_lightning.models import SmallCNN\n\nclass OwnNetwork(SmallCNN):\n    pass\n"
    )
    text = Path(resolve_config("digits_longtail")).read_text()
    (tmp_path / "own.yaml").write_text(
        text.replace("polyloss_lightning.models.SmallCNN", "own_network_of_the_user.OwnNetwork")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    main(["fit", "--config", "own.yaml", "--trainer.fast_dev_run", "true"])
    assert "own_network_of_the_user" in sys.modules


def test_main_leaves_the_arguments_of_the_process_as_they_were(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["notebook", "--port", "1"])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert sys.argv == ["notebook", "--port", "1"]
    assert "polyloss plot: draw" in " ".join(capsys.readouterr().out.split())


def test_a_command_of_ones_own_has_the_options_of_a_lightning_cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mine", "--seed_everything=0"])
    cli = PolyLossCLI(
        BoringModel,
        BoringDataModule,
        run=False,
        trainer_defaults={"max_epochs": 2, "callbacks": Timer(), "logger": False},
        save_config_kwargs={"config_filename": "used.yaml"},
        parser_kwargs={"description": "mine"},
    )
    assert (type(cli.model), type(cli.datamodule), cli.trainer.max_epochs) == (BoringModel, BoringDataModule, 2)
    assert {Timer, BestValidation} <= set(map(type, cli.trainer.callbacks))
    assert cli.save_config_kwargs == {"config_filename": "used.yaml", "overwrite": True}
    assert cli.parser.description == "mine"
