"""ImageClassifier under LightningCLI: built from YAML, and rebuilt from its checkpoint alone."""

import json

import pytest
import torch

from polyloss_lightning.data import DigitsDataModule
from polyloss_lightning.models import ImageClassifier

cli = pytest.importorskip("lightning.pytorch.cli")

CONFIG = {
    "seed_everything": 0,
    "model": {
        "network": {"class_path": "polyloss_lightning.models.SmallCNN", "init_args": {"width": 4}},
        "num_classes": 10,
        "loss_fn": {
            "class_path": "polyloss_lightning.losses.Poly1CrossEntropyLoss",
            "init_args": {"epsilon": 2, "weight": [1.0] * 9 + [2.0]},
        },
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}},
        "metrics": {
            "accuracy": {
                "class_path": "torchmetrics.classification.MulticlassAccuracy",
                "init_args": {"num_classes": 10, "average": "micro"},
            }
        },
        "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.ExponentialLR", "init_args": {"gamma": 0.5}},
    },
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "digits.yaml"
    config.write_text(json.dumps(CONFIG))
    monkeypatch.setattr("sys.argv", ["train", "--config", str(config)])
    run = cli.LightningCLI(ImageClassifier, DigitsDataModule, run=False)
    run.trainer.fit(run.model, run.datamodule)
    return run


def test_optimizer_and_scheduler_come_from_yaml(trained):
    (optimizer,) = trained.trainer.optimizers
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    assert trained.model.loss_fn.epsilon == 2.0
    assert trained.model.loss_fn.weight.tolist() == [1.0] * 9 + [2.0]


def test_a_checkpoint_alone_rebuilds_the_model(trained):
    path = trained.trainer.checkpoint_callback.best_model_path
    again = ImageClassifier.load_from_checkpoint(path, weights_only=True)
    images = trained.datamodule.val[:][0]
    torch.testing.assert_close(again.eval()(images), trained.model.eval()(images))
    assert again.loss_fn.arguments()["epsilon"] == 2.0
    assert isinstance(again.configure_optimizers()["optimizer"], torch.optim.SGD)


def test_a_run_tests_and_predicts_from_its_checkpoint(trained):
    path = trained.trainer.checkpoint_callback.best_model_path
    (values,) = trained.trainer.test(trained.model, trained.datamodule, ckpt_path=path, verbose=False)
    assert 0 <= values["test/balanced_accuracy"] <= 1
    probabilities = torch.cat(trained.trainer.predict(trained.model, trained.datamodule, ckpt_path=path))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(360))
    right = probabilities.argmax(1) == trained.datamodule.test[:][1]
    assert values["test/accuracy"] == pytest.approx(float(right.float().mean()))  # the metric from YAML
