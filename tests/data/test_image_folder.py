"""Images in folders: where they are found, how they are split and prepared, and clear errors."""

import pytest
import torch

pytest.importorskip("torchvision")
import numpy as np
from PIL import Image
from torchvision.transforms import v2

from polyloss_lightning.data import ImageFolderDataModule


def make(root, counts, size=8):
    """Write grey images of a brightness that depends on the class and the image."""
    for number, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.new("RGB", (size, size), (40 * number + index,) * 3).save(root / folder / f"{index:03}.png")
    return root


def parts(root, train=(6, 4, 2), val=(2, 2, 2), test=(2, 2, 2)):
    for part, counts in (("train", train), ("val", val), ("test", test)):
        make(root / part, dict(zip(("cat", "dog", "owl"), counts, strict=True)))
    return root


def datamodule(root, **options):
    return ImageFolderDataModule(root, **{"image_size": 8, "augment": "none", "batch_size": 5, **options})


def test_parts_classes_and_counts_come_from_the_folders(tmp_path):
    data = datamodule(parts(tmp_path))
    assert data.class_names == ["cat", "dog", "owl"]
    assert data.class_counts == [6, 4, 2]
    assert (data.num_classes, data.in_channels) == (3, 3)
    assert [len(part) for part in (data.val, data.test)] == [6, 6]
    images, target = next(iter(data.val_dataloader()))
    assert images.shape == (5, 3, 8, 8)
    assert target.tolist() == [0, 0, 1, 1, 2]


def test_one_folder_is_split_by_class_and_seed(tmp_path):
    root = make(tmp_path, {"cat": 40, "dog": 20, "owl": 3})
    data = datamodule(root, val_fraction=0.2, test_fraction=0.1)
    paths = [[path for path, _ in part.samples] for part in (data.train, data.val, data.test)]
    assert sorted(path for part in paths for path in part) == sorted(map(str, root.rglob("*.png")))
    assert [torch.bincount(torch.tensor(part.targets)).tolist() for part in (data.train, data.val, data.test)] == [
        [28, 14, 1],
        [8, 4, 1],
        [4, 2, 1],
    ]
    assert datamodule(root, val_fraction=0.2, test_fraction=0.1).val.samples == data.val.samples
    assert datamodule(root, val_fraction=0.2, test_fraction=0.1, seed=1).val.samples != data.val.samples


def test_a_class_may_be_called_train(tmp_path):
    data = datamodule(make(tmp_path, {"bus": 4, "car": 4, "train": 4}))
    assert data.class_names == ["bus", "car", "train"]
    assert data.class_counts == [2, 2, 2]


def test_the_training_part_alone_can_be_made_long_tailed(tmp_path):
    data = datamodule(parts(tmp_path, train=(8, 8, 8)), imbalance=4.0)
    assert sorted(data.class_counts) == [2, 4, 8]
    assert len(data.val) == 6


@pytest.mark.parametrize("augment", ["none", "light", "randaugment", "trivialaugment"])
@pytest.mark.parametrize("grayscale", [False, True])
def test_every_preset_gives_images_of_the_size(tmp_path, augment, grayscale):
    data = datamodule(parts(tmp_path), augment=augment, image_size=16, grayscale=grayscale)
    for loader in (data.train_dataloader(), data.test_dataloader()):
        images, _ = next(iter(loader))
        assert images.shape[1:] == (data.in_channels, 16, 16)
        assert images.dtype == torch.float32
        assert images.isfinite().all()


def test_images_are_normalized_as_pretrained_networks_expect(tmp_path):
    images, _ = next(iter(datamodule(parts(tmp_path)).test_dataloader()))
    expected = (torch.zeros(3) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(images[0, :, 0, 0], expected)  # the first image is black


def test_own_transforms_replace_the_presets(tmp_path):
    prepare = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    data = datamodule(parts(tmp_path), transform=prepare, train_transform=v2.Compose([*prepare, v2.Resize(4)]))
    images, _ = next(iter(data.test_dataloader()))
    assert images.max() <= 1
    assert next(iter(data.train_dataloader()))[0].shape[-1] == 4
    assert "transform" not in data.hparams


def test_own_transforms_come_from_yaml(tmp_path):
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(ImageFolderDataModule, "data")
    convert = {"class_path": "torchvision.transforms.v2.ToDtype", "init_args": {"dtype": "torch.float32"}}
    resize = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": 4}}
    transforms = [{"class_path": "torchvision.transforms.v2.ToImage"}, convert, resize]
    config = {"root": str(parts(tmp_path)), "transform": transforms, "train_transform": transforms}
    data = parser.instantiate(parser.parse_object({"data": config})).data
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert next(iter(loader))[0].shape[1:] == (3, 4, 4)


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_training_batches_are_mixed_and_others_are_not(tmp_path, options):
    data = datamodule(parts(tmp_path), **options)
    _, target = next(iter(data.train_dataloader()))
    assert target.shape == (5, 3)
    torch.testing.assert_close(target.sum(1), torch.ones(5))
    assert next(iter(data.val_dataloader()))[1].dtype == torch.int64


def test_images_without_labels_are_predicted(tmp_path):
    root = parts(tmp_path / "data")
    new = make(tmp_path, {"new": 2, "new/deeper": 1}) / "new"
    data = datamodule(root, predict_root=new)
    (images,) = list(data.predict_dataloader())
    assert images.shape == (3, 3, 8, 8)
    assert datamodule(root).predict_dataloader().dataset is not None
    alone = datamodule(None, predict_root=new, class_names=["a", "b"])
    assert alone.num_classes == 2
    assert not hasattr(alone, "class_counts")


def test_hidden_files_and_folders_are_left_out(tmp_path):
    root = parts(tmp_path)
    make(root / "train", {".ipynb_checkpoints": 1})
    (root / "train" / "cat" / "._000.png").write_bytes(b"not an image")
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    assert datamodule(root).class_counts == [6, 4, 2]


def test_hyperparameters_are_primitives(tmp_path):
    data = datamodule(parts(tmp_path))
    assert data.hparams["root"] == str(tmp_path)


def broken(tmp_path, kind):
    root = parts(tmp_path)
    if kind == "no folder":
        return root / "nothing"
    if kind == "no classes":
        (root / "empty").mkdir()
        return root / "empty"
    if kind == "no image":
        (root / "other" / "cat").mkdir(parents=True)
        (root / "other" / "dog").mkdir()
        return root / "other"
    if kind == "empty class":
        [path.unlink() for path in (root / "val" / "dog").iterdir()]
    if kind == "missing class":
        (root / "val" / "owl").rename(root / "owl")
    if kind == "unknown class":
        make(root / "test", {"fox": 1})
    if kind == "one class":
        return make(root / "one", {"cat": 4})
    if kind == "one image":
        return make(root / "split", {"cat": 4, "dog": 1})
    if kind == "parts without classes":  # and not two classes, train and val
        return make(root / "flat", {"train": 8, "val": 8})
    if kind == "other names":
        make(root / "named", {"Training/cat": 1, "Training/dog": 1, "Testing/cat": 1, "Testing/dog": 1})
        return root / "named"
    if kind == "no val":
        (root / "val").rename(root / "validation")
    return root


@pytest.mark.parametrize(
    ("kind", "error", "named"),
    [
        ("no folder", FileNotFoundError, r"there is no folder .*nothing"),
        ("no classes", FileNotFoundError, "must contain one folder of images for each class"),
        ("no image", FileNotFoundError, r"there is no image in .*cat"),
        ("empty class", FileNotFoundError, r"there is no image in .*val.dog"),
        ("missing class", FileNotFoundError, r"val has no folder of the class 'owl'"),
        ("unknown class", ValueError, r"test has a folder 'fox', which is not a class"),
        ("one class", ValueError, r"one folder only: 'cat'"),
        ("one image", ValueError, r"the class 'dog' has too few images to split: it needs at least 3 .* got 1"),
        ("parts without classes", FileNotFoundError, "there is no folder in .*train: it must contain"),
        ("other names", ValueError, r"the folders Testing, Training, .* rename them to train, val and test"),
        ("no val", FileNotFoundError, r"has a folder train, but no folder val: add it, or pass .*train as `root`"),
    ],
)
def test_errors_contain_the_folder_or_the_class(tmp_path, kind, error, named):
    with pytest.raises(error, match=named):
        datamodule(broken(tmp_path, kind))


def test_an_unreadable_image_is_named(tmp_path):
    root = parts(tmp_path)
    (root / "val" / "cat" / "000.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"cannot read the image .*val.cat.000.png"):
        next(iter(datamodule(root).val_dataloader()))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_images_of_16_bits_are_scaled_to_8_bits(tmp_path, suffix):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for folder in ("cat", "dog"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.fromarray(257 * levels).save(tmp_path / folder / f"{number}.{suffix}")
    for grayscale in (True, False):
        data = datamodule(tmp_path, grayscale=grayscale, transform=v2.PILToTensor())
        image, _ = data.val[0]
        assert torch.equal(image, torch.from_numpy(levels.astype("uint8")).expand(data.in_channels, 16, 16))


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "floating-point numbers"), ("int32", "integers of 32 bits")])
def test_an_image_with_values_of_an_unknown_range_is_an_error(tmp_path, dtype, kind):
    root = parts(tmp_path)
    Image.fromarray(np.arange(512).reshape(16, 32).astype(dtype)).save(root / "val" / "cat" / "000.tif")
    with pytest.raises(ValueError, match=f"cannot read the image .*val.cat.000.tif: its values are {kind}"):
        next(iter(datamodule(root).val_dataloader()))


def test_names_of_many_classes_are_cut_in_errors(tmp_path):
    root = make(tmp_path, {f"n{number:03}": 1 for number in range(30)})
    names = sorted(path.name for path in root.iterdir())
    with pytest.raises(FileNotFoundError, match=r"the class 'owl' \(classes: n000, .*, n019 and 11 more\)"):
        datamodule(root, class_names=[*names, "owl"])
    saved = datamodule(None, predict_root=root, class_names=[*names, "owl"]).state_dict()
    with pytest.raises(
        ValueError, match=r"n019 and 11 more, but .* n019 and 10 more \(the first .* are owl and None\)"
    ):
        datamodule(None, predict_root=root, class_names=names).load_state_dict(saved)


def test_a_checkpoint_of_another_split_is_reported(tmp_path):
    root = make(tmp_path, {"cat": 12, "dog": 12})
    saved = datamodule(root, seed=3).state_dict()
    datamodule(root, seed=3).load_state_dict(saved)  # warnings are errors
    with pytest.warns(UserWarning, match=r"another split \(seed 3, val_fraction 0.15.*, and not seed 0, val_fraction"):
        datamodule(root).load_state_dict(saved)
    separate = parts(tmp_path / "separate")
    datamodule(separate).load_state_dict(datamodule(separate, seed=3).state_dict())  # nothing is split


def test_a_checkpoint_of_other_transforms_is_reported(tmp_path):
    root = parts(tmp_path)
    own, preset = datamodule(root, transform=v2.PILToTensor()), datamodule(root)
    with pytest.warns(UserWarning, match="prepared with a `transform` of your own: pass it again"):
        preset.load_state_dict(own.state_dict())
    with pytest.warns(UserWarning, match="prepared without your `transform`"):
        own.load_state_dict(preset.state_dict())


def test_a_test_part_is_needed_only_for_the_test(tmp_path):
    root = parts(tmp_path)
    (root / "test").rename(root / "later")
    data = datamodule(root)
    assert next(iter(data.train_dataloader()))
    with pytest.raises(FileNotFoundError, match="no test part: there is no folder"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"image_size": 0}, "`image_size` must be an integer of at least 1, got 0"),
        ({"augment": "heavy"}, "`augment` must be one of .* got 'heavy'"),
        ({"mixup": -1.0}, "`mixup` must be a finite number of at least 0, got -1.0"),
        ({"val_fraction": 0.0}, "`val_fraction` must be above 0"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "their sum below 1, got 0.6 and 0.5"),
        ({"imbalance": 0.5}, "`imbalance` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"class_names": ["cat", "cat", "dog"]}, r"`class_names` .* each of them once, got \['cat', 'cat', 'dog'\]"),
        ({"class_names": ["cat"]}, r"`class_names` must contain at least two names"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, options, named):
    with pytest.raises(ValueError, match=named):
        datamodule(parts(tmp_path), **options)


def test_the_root_is_needed_except_for_predictions_from_a_checkpoint():
    with pytest.raises(ValueError, match="`root` must be the folder of the images"):
        datamodule(None)
