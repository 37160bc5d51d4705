"""The shipped configs: each begins with what it is for, and each runs."""

import pickle

import numpy as np
import pytest

from polyloss_lightning._shipped_configs import config_dir, config_names
from polyloss_lightning.cli import main as polyloss

pytest.importorskip("torchvision")

QUICK = ["--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
QUICK += ["--trainer.accelerator=cpu", "--data.num_workers=0"]
# Trained by test_own_images.py and tests/data/test_multilabel_csv.py, and by test_cli.py.
TESTED_ELSEWHERE = {"image_folder", "image_folder_longtail", "multilabel_csv", "digits_longtail"}


@pytest.mark.parametrize("name", config_names())
def test_each_config_starts_with_three_lines_about_its_use(name):
    lines = (config_dir() / f"{name}.yaml").read_text().splitlines()
    assert [line.startswith("# ") for line in lines[:4]] == [True, True, True, False]
    assert any(line.startswith("# To change: ") for line in lines[1:3])


def test_every_config_is_run_by_a_test():
    assert set(config_names()) == TESTED_ELSEWHERE | {"digits_constant", "cifar100_lt", "imagenet_folder"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_digits_constant_has_the_epsilon_of_the_command_line(run, capsys):
    polyloss(["fit", "--config", "digits_constant", "--model.loss_fn.init_args.epsilon", "5", *QUICK])
    rows = [
        line.strip("│").split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│ val/poly")
    ]
    values = {cells[0].strip(): float(cells[1]) for cells in rows}
    assert values["val/poly/correction"] == pytest.approx(5 * (1 - values["val/poly/pt"]), rel=1e-3)


@pytest.mark.parametrize("name", ["cifar100_lt", "imagenet_folder"])
def test_configs_that_were_not_run_in_full_state_it(name):
    assert "It was never run in full." in (config_dir() / f"{name}.yaml").read_text().splitlines()[0]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # of Lightning, because of fast_dev_run
def test_cifar100_lt_trains_on_files_of_the_format_of_cifar_100(run, monkeypatch, capsys):
    folder = run / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (300, 3 * 32 * 32), dtype=np.uint8)
    content = {"data": images, "fine_labels": [k % 100 for k in range(300)]}
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {k}" for k in range(100)]}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *arguments: True)
    polyloss(["fit", "--config", "cifar100_lt", "--data.batch_size=8", *QUICK])
    printed = capsys.readouterr().out
    assert "of 100 classes" in printed
    assert "few (100 classes)" in printed


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_imagenet_folder_trains_on_a_folder(run, capsys):
    from PIL import Image

    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (run / "images" / part / name).mkdir(parents=True)
            for number in range(2):
                Image.effect_noise((40, 40), 64).save(run / "images" / part / name / f"{number}.png")
    small = ["--data.image_size=32", "--model.network.name=resnet18"]
    polyloss(["fit", "--config", "imagenet_folder", "--data.root", "images", *small, *QUICK])
    assert "val/balanced_accuracy" in capsys.readouterr().out
