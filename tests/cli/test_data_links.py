"""The command takes numbers of classes and channels from the data; what was given and differs is an error."""

import json
import pickle
import sys
from fractions import Fraction

import pytest
import torch
from jsonargparse import Namespace

from polyloss_lightning.cli import PolyLossCLI
from polyloss_lightning.cli.data_links import take_from_checkpoint

OWN = """
from polyloss_lightning.data import DigitsDataModule
from polyloss_lightning.models import ImageClassifier
from torch.utils.data import TensorDataset
from lightning.pytorch import LightningDataModule

class FirstThree(DigitsDataModule):
    num_classes, class_names = 3, ["zero", "one", "two"]

    def __init__(self, imbalance: float | None = None):
        super().__init__(imbalance)
        for name in ("train", "val", "test"):
            images, target = getattr(self, name)[:]
            setattr(self, name, TensorDataset(images[target < 3], target[target < 3]))

class Silent(LightningDataModule):
    def __init__(self):
        super().__init__()
        self.digits = DigitsDataModule()

    def train_dataloader(self):
        return self.digits.train_dataloader()

    def val_dataloader(self):
        return self.digits.val_dataloader()

class Classifier(ImageClassifier):
    def __init__(self, num_classes: int, in_channels: int = 7):
        from polyloss_lightning.models import SmallCNN
        super().__init__(SmallCNN(num_classes), num_classes)

class Fixed(ImageClassifier):
    def __init__(self, width: int = 4):
        from polyloss_lightning.models import SmallCNN
        super().__init__(SmallCNN(3, width=width), 3)
"""


def config(model, data):
    trainer = {"fast_dev_run": True, "enable_progress_bar": False, "enable_model_summary": False}
    return {"seed_everything": 0, "model": model, "data": data, "trainer": trainer}


def classifier(**arguments):
    network = {"class_path": "polyloss_lightning.models.SmallCNN", "init_args": arguments.pop("network", {})}
    return {
        "class_path": "polyloss_lightning.models.ImageClassifier",
        "init_args": {"network": network, **arguments},
    }


@pytest.fixture
def fit(tmp_path, monkeypatch):
    (tmp_path / "own_links.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def fit(model, data="own_links.FirstThree"):
        (tmp_path / "config.json").write_text(json.dumps(config(model, {"class_path": data})))
        monkeypatch.setattr(sys, "argv", ["polyloss", "fit", "--config", "config.json"])
        return PolyLossCLI()

    return fit


def test_model_and_network_get_the_numbers_of_classes_and_channels_of_the_data(fit):
    model = fit(classifier()).model
    assert model.num_classes == model.network.head.out_features == 3
    assert model.hparams["num_classes"] == 3
    assert model.hparams["network"]["init_args"]["num_classes"] == 3


def test_a_model_of_the_user_gets_them_if_it_has_such_an_argument(fit):
    assert fit({"class_path": "own_links.Classifier"}).model.num_classes == 3
    fixed = fit({"class_path": "own_links.Fixed"}).model
    assert fixed.num_classes == 3
    assert "num_classes" not in fixed.hparams


def test_data_without_these_attributes_leave_the_config_as_it_is(fit):
    model = fit(classifier(num_classes=10), "own_links.Silent").model
    assert model.num_classes == 10


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (classifier(num_classes=4), "`model.num_classes` is 4, but FirstThree has num_classes=3"),
        (classifier(network={"num_classes": 4}), "`model.network.num_classes` is 4, but FirstThree has num_classes=3"),
        (classifier(network={"in_channels": 3}), "`model.network.in_channels` is 3, but FirstThree has in_channels=1"),
    ],
)
def test_a_different_number_in_the_config_is_an_error_with_both_numbers(fit, capsys, model, named):
    with pytest.raises(SystemExit):
        fit(model)
    assert named in capsys.readouterr().err


def test_a_checkpoint_with_objects_is_read_with_the_weights_only_of_the_command(tmp_path):
    torch.save({"ImageFolderDataModule": {"grayscale": True}, "object": Fraction(1, 2)}, tmp_path / "run.ckpt")
    arguments = Namespace(root="images", class_names=None, grayscale=False)
    data = Namespace(class_path="polyloss_lightning.data.ImageFolderDataModule", init_args=arguments)
    with pytest.warns(UserWarning, match="`grayscale` is True as in the checkpoint, and not False"):
        take_from_checkpoint(data, str(tmp_path / "run.ckpt"), weights_only=False, predicting=False)
    assert data.init_args.grayscale is True
    arguments.grayscale = False
    with pytest.raises(pickle.UnpicklingError):
        take_from_checkpoint(data, str(tmp_path / "run.ckpt"), weights_only=None, predicting=False)


@pytest.mark.parametrize("ckpt_path", ["last", "best", "registry:model:version:2", None])
def test_a_checkpoint_that_lightning_finds_is_left_to_it(ckpt_path):
    data = Namespace(class_path="mine.Data", init_args=Namespace(root=None, class_names=None, grayscale=False))
    take_from_checkpoint(data, ckpt_path, weights_only=None, predicting=True)
    assert data.init_args == Namespace(root=None, class_names=None, grayscale=False)
