"""Labels of images from CSV files: both forms, the split, and errors by line."""

import csv

import pytest
import torch

from polyloss_lightning.data import MultiLabelCSVDataModule

pytest.importorskip("torchvision")

SMALL = {"image_size": 4, "augment": "none", "grayscale": True}


@pytest.fixture
def write(tmp_path):
    """Writes a CSV file next to ten images whose brightness is their number."""
    from PIL import Image

    for number in range(10):
        Image.new("L", (4, 4), 20 * number).save(tmp_path / f"{number}.png")

    def file(text, name="labels.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return file


COLUMNS = "file,cat,dog\n" + "".join(f"{n}.png,{n % 2},{int(n > 4)}\n" for n in range(10))
LISTS = "file,labels\n" + "".join(
    f"{n}.png,{'|'.join(name for name, has in (('dog', n > 4), ('cat', n % 2)) if has)}\n" for n in range(10)
)


def targets(loader):
    return torch.cat([target for _, target in loader])


@pytest.mark.parametrize("text", [COLUMNS, LISTS], ids=["columns", "lists"])
def test_targets_are_one_number_per_label(write, text):
    path = write(text)
    data = MultiLabelCSVDataModule(path, path, path, **SMALL)
    assert data.class_names == ["cat", "dog"]
    assert data.num_classes == 2
    assert data.in_channels == 1
    expected = torch.tensor([[n % 2, n > 4] for n in range(10)], dtype=torch.float32)
    assert torch.equal(targets(data.val_dataloader()), expected)
    assert data.class_counts == expected.sum(0).int().tolist()
    images = torch.cat([image for image, _ in data.test_dataloader()])
    assert images.shape == (10, 1, 4, 4)
    assert images.mean((1, 2, 3)).diff().min() > 0  # the images are in the order of the file


def test_one_file_is_split_by_the_seed(write):
    path = write(COLUMNS)

    def parts(seed):
        data = MultiLabelCSVDataModule(path, val_fraction=0.2, test_fraction=0.3, seed=seed, **SMALL)
        return [[sample[0] for sample in data._files[part].samples] for part in ("train", "val", "test")]

    first = parts(0)
    assert [len(part) for part in first] == [5, 2, 3]
    assert len({name for part in first for name in part}) == 10
    assert parts(0) == first
    assert parts(1) != first


def test_a_missing_test_part_is_an_error_when_it_is_used(write):
    data = MultiLabelCSVDataModule(write(COLUMNS), test_fraction=0.0, **SMALL)
    with pytest.raises(FileNotFoundError, match="no test part"):
        data.test_dataloader()


def test_the_columns_of_another_part_may_have_another_order(write):
    train, val = write(COLUMNS), write("file,dog,cat\n1.png,0,1\n", "val.csv")
    assert targets(MultiLabelCSVDataModule(train, val, **SMALL).val_dataloader()).tolist() == [[1, 0]]


def test_images_of_another_folder(write, tmp_path):
    (tmp_path / "tables").mkdir()
    path = write(COLUMNS, "tables/labels.csv")
    assert len(MultiLabelCSVDataModule(path, path, root=tmp_path, **SMALL).val_dataloader().dataset) == 10


def test_predictions_need_no_labels(write, tmp_path):
    data = MultiLabelCSVDataModule(write(COLUMNS), predict_root=tmp_path, **SMALL)
    (images,) = list(data.predict_dataloader())
    assert images.shape == (10, 1, 4, 4)


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("", ValueError, "line 1: the header must be"),
        ("image,cat,dog\n", ValueError, "line 1: the header must be.*image,cat,dog"),
        ("file,cat,cat\n0.png,0,1\n", ValueError, "line 1: every column needs a name of its own"),
        ("file,cat,dog\n", ValueError, "no row below its header"),
        ("file,cat,dog\n0.png,0,1\n1.png,0\n", ValueError, "line 3: it has 2 columns, and the header has 3"),
        ("file,cat,dog\n0.png,0,yes\n", ValueError, "line 2: the value of 'dog' must be 0 or 1, got 'yes'"),
        ("file,cat,dog\n0.png,0,\n", ValueError, "line 2: the value of 'dog' must be 0 or 1, got ''"),
        ("file,cat,dog\n0.png,0,1\nmissing.png,0,1\n", FileNotFoundError, "line 3: there is no image .*missing.png"),
        ("file,cat,dog\n,0,1\n", FileNotFoundError, "line 2: `file` is empty"),
        ("file,cat\n0.png,1\n", ValueError, "at least two labels, but .* has cat"),
        ("file,labels\n0.png,\n", ValueError, "at least two labels, but .* has none"),
    ],
)
def test_a_mistake_in_a_table_is_reported_with_its_line(write, text, error, match):
    with pytest.raises(error, match=match):
        MultiLabelCSVDataModule(write(text), **SMALL)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("file,labels\n0.png,cat|bird\n", "line 2: the label 'bird' is not one of cat, dog"),
        ("file,cat,bird\n0.png,0,1\n", "line 1: the labels are cat, bird, but those of the training part cat, dog"),
    ],
)
def test_a_label_that_is_not_in_the_training_part_is_an_error(write, text, match):
    train, val = write(COLUMNS), write(text, "val.csv")
    with pytest.raises(ValueError, match=match):
        MultiLabelCSVDataModule(train, val, **SMALL)


def test_bad_arguments(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.csv"):
        MultiLabelCSVDataModule(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"`val_fraction`.*0\.9 and 0\.2"):
        MultiLabelCSVDataModule(write(COLUMNS), val_fraction=0.9, test_fraction=0.2)
    with pytest.raises(ValueError, match="`test` needs `val`"):
        MultiLabelCSVDataModule(write(COLUMNS), test=write(COLUMNS))


def test_the_shipped_config_goes_through_fit_test_and_predict(write, tmp_path, monkeypatch):
    from polyloss_lightning.cli import main

    monkeypatch.chdir(tmp_path)
    path = write(COLUMNS)
    parts = [f"--data.{part}={path}" for part in ("train", "val", "test")]
    data = [*parts, "--data.image_size=8", "--data.augment=none"]
    quiet = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    main(["fit", "--config", "multilabel_csv", *data, *quiet])
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    for command in ("test", "predict"):
        main([command, "--config", "multilabel_csv", *data, *quiet, "--ckpt_path", str(checkpoint)])
    (written,) = tmp_path.rglob("predictions.csv")
    with written.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert {"file", "predicted", "target", "probability_cat", "probability_dog"} == set(rows[0])
