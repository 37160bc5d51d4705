"""The callbacks in the YAML of somebody's LightningCLI app, in both names of Lightning."""

import importlib

import pytest
import torch
import yaml
from torch import nn

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
SCHEDULE = {
    "class_path": "polyloss_lightning.schedules.LinearSchedule",
    "init_args": {"init_value": -1.0, "end_value": 2.0},
}
SCHEDULER = {"class_path": "polyloss_lightning.callbacks.EpsilonScheduler", "init_args": {"schedule": SCHEDULE}}


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def app(request, data, tmp_path, monkeypatch):
    """Somebody's app: ``app(init_args of the override)`` runs it, and gives its module."""
    namespace = importlib.import_module(request.param)
    cli = importlib.import_module(f"{request.param}.cli").LightningCLI

    class Module(namespace.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.criterion, self.seen = nn.Linear(4, 3), nn.CrossEntropyLoss(), []

        def training_step(self, batch, batch_idx):
            logits = self.net(batch[0])
            loss = self.criterion(logits, batch[1])
            self.seen.append((loss.item(), logits.detach(), batch[1]))
            return loss

        def train_dataloader(self):
            return data

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def run(arguments, *others):
        override = {"class_path": "polyloss_lightning.callbacks.PolyLossOverride", "init_args": arguments}
        trainer = {**QUIET, "max_epochs": 1, "callbacks": [override, *others]}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # lightning 2.6 calls what 4.53 deprecates
        monkeypatch.setattr("sys.argv", ["app", "fit", "--config", "config.yaml"])
        return cli(Module, save_config_callback=None, seed_everything_default=1).model

    return run


@pytest.mark.parametrize(
    ("epsilon", "others", "expected"), [(2, [], [2.0] * 4), (1, [SCHEDULER], [-1.0, 0.0, 1.0, 2.0])], ids=["one", "two"]
)
@pytest.mark.condition("PolyLossOverride", "LightningCLI, both namespaces")
def test_a_yaml_of_one_callback_or_two_does_everything(app, by_hand, epsilon, others, expected):
    arguments = {"epsilon": epsilon, "losses": ["cross_entropy"], "scope": ["crit*"], "stages": ["train", "val"]}
    module = app(arguments, *others)
    for (loss, logits, target), value in zip(module.seen, expected, strict=True):
        assert loss == pytest.approx(by_hand(logits, target, epsilon=value).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"losses": ["mse_loss"]}, "mse_loss"),
        ({"stages": ["fit"]}, "fit"),
        ({"epsilon": "much"}, "much"),
        ({"epsilon": SCHEDULE}, "EpsilonScheduler"),
    ],
)
def test_a_wrong_value_in_the_yaml_is_named(app, capsys, arguments, message):
    with pytest.raises((SystemExit, ValueError, TypeError)) as raised:
        app(arguments)
    assert message in capsys.readouterr().err + str(raised.value)


def test_several_coefficients_are_a_list(app):
    assert len(app({"epsilon": [1.0, -0.5]}).seen) == 4
