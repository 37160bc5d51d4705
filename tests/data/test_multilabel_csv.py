"""Labels of images from CSV files: both forms, the split, and errors by line."""

import csv

import pytest
import torch

from polyloss_lightning.data import MultiLabelCSVDataModule

pytest.importorskip("torchvision")

# Many tests use one table for several parts.
pytestmark = pytest.mark.filterwarnings("ignore:.* images of .* are also in:UserWarning")

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
        ("file,cat,cat\n0.png,0,1\n", ValueError, "line 1: every column must have a name that no"),
        ("file,cat,dog\n", ValueError, "no row below its header"),
        ("file,cat,dog\n0.png,0,1\n1.png,0\n", ValueError, "line 3: it has 2 columns, and the header has 3"),
        ("file,cat,dog\n0.png,0,yes\n", ValueError, "line 2: the value of 'dog' must be 0 or 1, got 'yes'"),
        ("file,cat,dog\n0.png,0,\n", ValueError, "line 2: the value of 'dog' must be 0 or 1, got ''"),
        ("file,cat,dog\n0.png,0,1\nmissing.png,0,1\n", FileNotFoundError, "line 3: there is no image .*missing.png"),
        ("file,cat,dog\n,0,1\n", FileNotFoundError, "line 2: `file` is empty"),
        (
            "file,cat,dog\n0.png,1,0\n1.png,0,0\n0.png,0,1\n",
            ValueError,
            "line 4: '0.png' is already in line 2; put all",
        ),
        ("file,labels\n0.png,cat\n./0.png,dog\n", ValueError, "line 3: './0.png' is already in line 2; put all"),
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
        ("file,cat,bird\n0.png,0,1\n", "line 1: the labels are cat, bird, but .* the training part has cat, dog"),
    ],
)
def test_a_label_that_is_not_in_the_training_part_is_an_error(write, text, match):
    train, val = write(COLUMNS), write(text, "val.csv")
    with pytest.raises(ValueError, match=match):
        MultiLabelCSVDataModule(train, val, **SMALL)


def test_a_checkpoint_refuses_other_labels_and_another_order(write):
    saved = MultiLabelCSVDataModule(write(COLUMNS), **SMALL).state_dict()
    swapped = write("file,dog,cat\n" + "".join(f"{n}.png,{int(n > 4)},{n % 2}\n" for n in range(10)), "swapped.csv")
    other = write(COLUMNS.replace("dog", "fox"), "other.csv")
    order = "the checkpoint are cat, dog, but those of the data are dog, cat .*: pass `class_names` in the order"
    with pytest.raises(ValueError, match=order):
        MultiLabelCSVDataModule(swapped, **SMALL).load_state_dict(saved)
    with pytest.raises(ValueError, match=r"those of the data are cat, fox \(the first that differ are dog and fox\)$"):
        MultiLabelCSVDataModule(other, **SMALL).load_state_dict(saved)
    data = MultiLabelCSVDataModule(swapped, swapped, class_names=["cat", "dog"], **SMALL)
    data.load_state_dict(saved)
    expected = MultiLabelCSVDataModule(write(COLUMNS), write(COLUMNS), **SMALL)
    assert torch.equal(targets(data.val_dataloader()), targets(expected.val_dataloader()))


def test_a_checkpoint_determines_how_images_are_prepared(write, tmp_path):
    saved = MultiLabelCSVDataModule(write(COLUMNS), image_size=2, grayscale=True).state_dict()
    data = MultiLabelCSVDataModule(write(COLUMNS), predict_root=tmp_path, image_size=4)
    with (
        pytest.warns(UserWarning, match="`image_size` is 2 as in the checkpoint, and not 4"),
        pytest.warns(UserWarning, match="`grayscale` is True as in the checkpoint, and not False"),
    ):
        data.load_state_dict(saved)
    for loader in (data.train_dataloader(), data.test_dataloader()):
        assert next(iter(loader))[0].shape[1:] == (1, 2, 2)
    assert next(iter(data.predict_dataloader())).shape[1:] == (1, 2, 2)
    assert data.in_channels == 1


def test_a_checkpoint_is_used_without_the_training_part(write, tmp_path):
    names = {"class_names": ["dog", "cat"], **SMALL}
    new = MultiLabelCSVDataModule(predict_root=tmp_path, **names)
    assert next(iter(new.predict_dataloader())).shape == (10, 1, 4, 4)
    assert not hasattr(new, "class_counts")
    with pytest.raises(FileNotFoundError, match="no test part"):
        new.test_dataloader()
    tested = MultiLabelCSVDataModule(test=write("file,labels\n1.png,cat\n"), **names)  # no image of it has "dog"
    assert targets(tested.test_dataloader()).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match=r"`train` must be a CSV file .* with the `class_names` of the checkpoint"):
        MultiLabelCSVDataModule(predict_root=tmp_path)


def test_bad_arguments(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.csv"):
        MultiLabelCSVDataModule(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"`val_fraction`.*0\.9 and 0\.2"):
        MultiLabelCSVDataModule(write(COLUMNS), val_fraction=0.9, test_fraction=0.2)
    with pytest.raises(ValueError, match="`test` needs `val`"):
        MultiLabelCSVDataModule(write(COLUMNS), test=write(COLUMNS))
    with pytest.raises(ValueError, match=r"`class_names` .* each of them once, got \['cat', 'dog', 'dog'\]"):
        MultiLabelCSVDataModule(write(COLUMNS), class_names=["cat", "dog", "dog"], **SMALL)
    with pytest.raises(TypeError, match="`class_names` must be a sequence of strings, got 'cat'"):
        MultiLabelCSVDataModule(write(COLUMNS), class_names="cat", **SMALL)


def test_images_in_several_tables_are_reported(write, tmp_path):
    train, val = write("file,labels\n0.png,cat\n1.png,dog\n", "train.csv"), write("file,labels\n2.png,cat\n", "val.csv")
    test = write(f"file,labels\n{tmp_path / '1.png'},cat\n3.png,\n", "test.csv")
    with pytest.warns(UserWarning, match=r"^1 of the 2 images of `test` are also in `train`, such as .*1\.png"):
        MultiLabelCSVDataModule(train, val, test, **SMALL)


def test_a_checkpoint_of_another_split_is_reported(write):
    saved = MultiLabelCSVDataModule(write(COLUMNS), test_fraction=0.3, **SMALL).state_dict()
    with pytest.warns(UserWarning, match=r"another split \(.*test_fraction 0.3, and not .*test_fraction 0.15\)"):
        MultiLabelCSVDataModule(write(COLUMNS), **SMALL).load_state_dict(saved)


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
    (tmp_path / "new").mkdir()
    for number in range(10):
        (tmp_path / f"{number}.png").rename(tmp_path / "new" / f"{number}.png")
    new = ["--data.predict_root", "new", "--data.augment=none"]  # neither the table nor the size of the images
    with pytest.warns(UserWarning, match="`image_size` is 8 as in the checkpoint"):
        main(["predict", "--config", "multilabel_csv", *new, *quiet, "--ckpt_path", str(checkpoint)])
    alone = max(tmp_path.rglob("predictions*.csv"), key=lambda path: path.stat().st_mtime_ns)
    with alone.open(newline="") as file:
        again = {row["file"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert len(again) == 10
    for row in rows:
        for name in ("probability_cat", "probability_dog"):
            assert float(again[row["file"].rpartition("/")[2]][name]) == pytest.approx(float(row[name]), abs=1e-5)
