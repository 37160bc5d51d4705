"""A folder of images goes through fit, test and predict with the commands of the README."""

import contextlib
import csv
import io
import shutil
from pathlib import Path

import pytest
import torch

from polyloss_lightning.cli import main

pytest.importorskip("torchvision")
pytest.importorskip("sklearn")

COUNTS = {"one": (12, 4, 4), "two": (8, 4, 4), "zero": (4, 4, 4)}
QUICK = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SMALL = ["--data.image_size=8", "--data.augment=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits as PNG files in train, val and test, and a folder of new images."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    root = tmp_path_factory.mktemp("images")
    for digit, (name, counts) in zip((1, 2, 0), COUNTS.items(), strict=True):
        images = iter((digits.images[digits.target == digit] / 16 * 255).astype("uint8"))
        for part, count in zip(("train", "val", "test"), counts, strict=True):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(next(images)).save(root / part / name / f"{number}.png")
    (root / "new").mkdir()
    for name in COUNTS:
        shutil.copy(root / "test" / name / "0.png", root / "new" / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The folder of a run, its checkpoint, and what it printed."""
    where, printed = tmp_path_factory.mktemp("run"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(where)
        main(["fit", "--config", "image_folder", "--data.root", str(folder), *SMALL, *QUICK])
    (checkpoint,) = where.rglob("*.ckpt")
    return where, str(checkpoint), printed.getvalue()


def test_fit_ends_with_the_next_commands_and_what_poly_1_did(run, folder):
    where, checkpoint, printed = run
    options = f"--config image_folder --data.root {folder} --data.image_size=8 --data.augment=none"
    for command in ("test", "predict"):
        assert f"polyloss {command} {options} " in printed
    assert str(Path(checkpoint).relative_to(where)) in printed
    assert "percent of dL/dPt came from the first term, averaged over samples; epsilon 1 scaled" in printed
    logs = where / "logs" / "image_folder" / "csv" / "version_0"
    assert [row["class"] for row in rows(logs / "classes.csv")] == ["one", "two", "zero"]
    for name in ("confusion_matrix", "reliability"):
        assert (logs / "figures" / f"{name}.png").is_file()
    assert "val/calibration_error" in printed
    assert max(len(line) for line in printed.splitlines() if line[:1] in ("┃", "│", "┏")) <= 80


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_checkpoint_contains_the_classes_and_the_preparation_of_images(run):
    _, checkpoint, _ = run
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["ImageFolderDataModule"]["class_names"] == ["one", "two", "zero"]
    assert saved["ImageFolderDataModule"]["image_size"] == 8


def test_the_test_part_is_tested(run, folder, monkeypatch, capsys):
    where, checkpoint, _ = run
    monkeypatch.chdir(where)
    main(
        ["test", "--config", "image_folder", "--data.root", str(folder), "--ckpt_path", checkpoint, *SMALL, *QUICK[1:]]
    )
    printed = capsys.readouterr().out
    assert "balanced_accuracy" in printed
    assert "zero" in printed


@pytest.mark.parametrize("with_root", [True, False])
def test_new_images_are_predicted(run, folder, tmp_path, monkeypatch, capsys, with_root):
    monkeypatch.chdir(tmp_path)
    _, checkpoint, _ = run
    root = ["--data.root", str(folder)] if with_root else []
    arguments = ["--data.predict_root", str(folder / "new"), "--ckpt_path", checkpoint, *SMALL, *QUICK[1:]]
    main(["predict", "--config", "image_folder", *root, *arguments])
    (path,) = [line[13:] for line in capsys.readouterr().out.splitlines() if line.startswith("predictions: ")]
    predicted = rows(path)
    assert [row["file"] for row in predicted] == [
        str(folder / "new" / f"{name}.png") for name in ("one", "two", "zero")
    ]
    assert list(predicted[0]) == ["file", "predicted", "probability_one", "probability_two", "probability_zero"]
    for row in predicted:
        probabilities = {name: float(row[f"probability_{name}"]) for name in COUNTS}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert row["predicted"] == max(probabilities, key=probabilities.get)


def test_predictions_of_the_test_part_have_their_targets(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, checkpoint, _ = run
    options = ["--predictions.path", "out.csv", "--predictions.top_k", "2", "--ckpt_path", checkpoint]
    main(["predict", "--config", "image_folder", "--data.root", str(folder), *options, *SMALL, *QUICK[1:]])
    predicted = rows("out.csv")
    assert [row["target"] for row in predicted] == ["one"] * 4 + ["two"] * 4 + ["zero"] * 4
    assert all(row["class_1"] == row["predicted"] for row in predicted)
    assert all(float(row["probability_1"]) >= float(row["probability_2"]) for row in predicted)
    assert list(predicted[0])[-1] == "probability_2"


def test_the_size_of_the_checkpoint_is_used_with_a_warning(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, checkpoint, _ = run
    with pytest.warns(UserWarning, match="`image_size` is 8 as in the checkpoint, and not 64"):
        main(["predict", "--config", "image_folder", "--data.root", str(folder), "--ckpt_path", checkpoint, *QUICK[1:]])


def test_other_classes_than_those_of_the_checkpoint_are_an_error(run, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, checkpoint, _ = run
    shutil.copytree(folder, tmp_path / "other")
    for part in ("train", "val", "test"):
        (tmp_path / "other" / part / "two").rename(tmp_path / "other" / part / "ten")
    with pytest.raises(SystemExit):
        main(
            ["test", "--config", "image_folder", "--data.root", "other", "--ckpt_path", checkpoint, *SMALL, *QUICK[1:]]
        )
    assert (
        "the classes of the checkpoint are one, two, zero, but those of the data are one, ten, zero"
        in capsys.readouterr().err
    )


def test_data_of_another_number_of_classes_than_the_checkpoint_are_an_error(run, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "val", "test"):
        for name in ("one", "two"):
            shutil.copytree(folder / part / name, tmp_path / "other" / part / name)
    with pytest.raises(SystemExit):
        main(["test", "--config", "image_folder", "--data.root", "other", "--ckpt_path", run[1], *SMALL, *QUICK[1:]])
    message = "`model.num_classes` is 3, but ImageFolderDataModule has num_classes=2: the checkpoint "
    assert message in capsys.readouterr().err


def test_a_checkpoint_that_does_not_exist_is_named(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    new = ["--data.predict_root", str(folder / "new"), "--ckpt_path", "typo.ckpt"]
    with pytest.raises(SystemExit):
        main(["predict", "--config", "image_folder", *new, *SMALL, *QUICK[1:]])
    assert "there is no checkpoint typo.ckpt" in capsys.readouterr().err


def test_predictions_without_a_checkpoint_are_reported(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="no `ckpt_path`, so the model has the weights with which it was created"):
        main(["predict", "--config", "image_folder", "--data.root", str(folder), *SMALL, *QUICK[1:]])


def test_the_config_for_rare_classes_trains_with_class_weights(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--data.mixup=0.2", "--data.cutmix=1.0", "--data.grayscale=true"]
    main(["fit", "--config", "image_folder_longtail", "--data.root", str(folder), *options, *SMALL, *QUICK])
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    effective = torch.tensor([(1 - 0.999**count) / (1 - 0.999) for count in (12, 8, 4)])
    expected = (1 / effective) / (1 / effective).mean()
    torch.testing.assert_close(saved["polyloss_lightning"]["loss_fn"]["arguments"]["weight"], expected)
    # Without training images there are no weights, and no warning about it. The network has one channel.
    new = ["--data.predict_root", str(folder / "new"), "--ckpt_path", str(checkpoint)]
    with pytest.warns(UserWarning, match="`grayscale` is True as in the checkpoint, and not False"):
        main(["predict", "--config", "image_folder_longtail", *new, *SMALL, *QUICK[1:]])
    assert len(rows(next(tmp_path.rglob("predictions.csv")))) == 3
