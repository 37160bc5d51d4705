"""The loss in the checkpoints of a module, whose own hooks and those of its other mixins run, too."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from polyloss_lightning import LossProvider, Poly1CrossEntropyLoss, Poly1FocalLoss
from polyloss_lightning.provider import CHECKPOINT_KEY


class Net(LossProvider, LightningModule):
    def __init__(self, width: int = 4, loss_fn: nn.Module | None = None):
        super().__init__(loss_fn=loss_fn)
        self.save_hyperparameters(ignore=["loss_fn"])
        self.layer = nn.Linear(width, 3)

    def training_step(self, batch, batch_idx):
        input, target = batch
        return self.compute_loss(self.layer(input), target)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class HooksWithoutSuper(Net):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = 1

    def on_load_checkpoint(self, checkpoint):
        self.mine = checkpoint["mine"]


class HooksWithSuper(Net):
    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["mine"] = 1

    def on_load_checkpoint(self, checkpoint):
        super().on_load_checkpoint(checkpoint)
        self.mine = checkpoint["mine"]


def annealed_loss() -> Poly1CrossEntropyLoss:
    loss = Poly1CrossEntropyLoss(epsilon=-1.0, weight=[1.0, 2.0, 0.5], label_smoothing=0.1)
    loss.epsilon = 0.75
    return loss


@pytest.mark.parametrize("cls", [Net, HooksWithoutSuper, HooksWithSuper])
def test_a_module_without_a_loss_gets_that_of_the_checkpoint(save, cls):
    path = save(cls(loss_fn=annealed_loss()))
    loss = cls.load_from_checkpoint(path, weights_only=True).loss_fn
    assert loss.epsilon == 0.75
    assert loss.label_smoothing == 0.1
    torch.testing.assert_close(loss.weight, torch.tensor([1.0, 2.0, 0.5]))
    assert loss.arguments()["epsilon"] == -1.0


@pytest.mark.parametrize("cls", [HooksWithoutSuper, HooksWithSuper])
@pytest.mark.condition("LossProvider", "checkpoint hooks of the module")
def test_the_hooks_of_the_users_class_still_run(save, cls):
    assert cls.load_from_checkpoint(save(cls())).mine == 1


class SavesWithoutSuper:
    """A mixin of somebody else, whose hooks do not call ``super()``."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["theirs"] = 1

    def on_load_checkpoint(self, checkpoint):
        self.theirs = checkpoint["theirs"]


class LeftMixin(SavesWithoutSuper, Net):
    pass


class LeftOfTheProvider(SavesWithoutSuper, LossProvider, LightningModule):
    def __init__(self, loss_fn: nn.Module | None = None):
        super().__init__(loss_fn=loss_fn)
        self.layer = nn.Linear(4, 3)

    training_step, configure_optimizers = Net.training_step, Net.configure_optimizers


class BelowLeftMixin(LeftMixin):
    pass


class LeftOfWrappedHooks(SavesWithoutSuper, HooksWithSuper):
    pass


@pytest.mark.parametrize("cls", [LeftMixin, LeftOfTheProvider, BelowLeftMixin, LeftOfWrappedHooks])
def test_the_loss_is_saved_under_hooks_without_super_of_a_mixin_to_the_left(save, cls):
    net = cls.load_from_checkpoint(save(cls(loss_fn=annealed_loss())), weights_only=True)
    assert net.loss_fn.epsilon == 0.75
    assert net.theirs == 1


def test_the_same_loss_gets_its_annealed_epsilon_back(save):
    path = save(Net(loss_fn=annealed_loss()))
    given = Poly1CrossEntropyLoss(epsilon=-1.0, weight=[1.0, 2.0, 0.5], label_smoothing=0.1)
    net = Net.load_from_checkpoint(path, loss_fn=given)
    assert net.loss_fn is given
    assert given.epsilon == 0.75


@pytest.mark.parametrize(
    "given",
    [Poly1CrossEntropyLoss(epsilon=2.0), Poly1CrossEntropyLoss(-1.0, weight=[1.0, 2.0, 0.6]), nn.CrossEntropyLoss()],
)
@pytest.mark.parametrize("cls", [Net, HooksWithSuper])
def test_a_different_loss_is_kept_with_one_warning(save, given, cls):
    path = save(cls(loss_fn=annealed_loss()))
    with pytest.warns(UserWarning, match="differs from the loss given to this module") as warnings:
        net = cls.load_from_checkpoint(path, loss_fn=given)
    assert net.loss_fn is given
    assert len(warnings) == 1


def test_poly_n_epsilon_survives(save):
    path = save(Net(loss_fn=Poly1CrossEntropyLoss(epsilon=[0.5, -0.25])))
    assert Net.load_from_checkpoint(path).loss_fn.epsilon == (0.5, -0.25)


def test_a_foreign_loss_is_not_built_from_a_checkpoint(save):
    path = save(Net(loss_fn=nn.CrossEntropyLoss()))
    with pytest.warns(UserWarning, match="CrossEntropyLoss, which cannot be rebuilt"):
        assert isinstance(Net.load_from_checkpoint(path).loss_fn, Poly1CrossEntropyLoss)


def test_a_class_path_in_a_checkpoint_imports_nothing(save):
    path = save(Net())
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[CHECKPOINT_KEY]["loss_fn"] = {"class": "os.system", "arguments": {"command": "false"}, "epsilon": 1.0}
    torch.save(checkpoint, path)
    with pytest.warns(UserWarning, match="os.system.*cannot be rebuilt"):
        assert isinstance(Net.load_from_checkpoint(path).loss_fn, Poly1CrossEntropyLoss)


def test_a_subclass_of_the_users_own_gets_its_epsilon_back(save):
    class Mine(Poly1CrossEntropyLoss):
        def __init__(self):
            super().__init__(-1.0)

    loss = Mine()
    loss.epsilon = 1.5
    path = save(Net(loss_fn=loss))
    assert Net.load_from_checkpoint(path, loss_fn=Mine()).loss_fn.epsilon == 1.5


def test_an_argument_that_the_checkpoint_does_not_know_has_its_default(save):
    path = save(Net(loss_fn=annealed_loss()))
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint[CHECKPOINT_KEY]["loss_fn"]["arguments"]["num_terms"]
    torch.save(checkpoint, path)
    given = Poly1CrossEntropyLoss(epsilon=-1.0, weight=[1.0, 2.0, 0.5], label_smoothing=0.1)
    assert Net.load_from_checkpoint(path, loss_fn=given).loss_fn.epsilon == 0.75


@pytest.mark.parametrize("cls", [Net, HooksWithoutSuper, HooksWithSuper])
def test_one_checkpoint_restores_as_often_as_it_is_loaded(cls):
    net, checkpoint = cls(loss_fn=annealed_loss()), {}
    net.on_save_checkpoint(checkpoint)
    for _ in range(2):
        net.loss_fn.epsilon = 0.0
        net.on_load_checkpoint(checkpoint)
        assert net.loss_fn.epsilon == 0.75


@pytest.mark.condition("LossProvider", "checkpoint of a module without PolyLoss")
def test_an_old_checkpoint_loads_strictly(save):
    path = save(Net(loss_fn=annealed_loss()))
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint[CHECKPOINT_KEY]
    torch.save(checkpoint, path)
    assert Net.load_from_checkpoint(path, strict=True).loss_fn.epsilon == 1.0


@pytest.mark.condition("LossProvider", "save_hyperparameters")
def test_save_hyperparameters_leaves_a_checkpoint_of_primitives(save):
    class Careless(Net):
        def __init__(self, width: int = 4, loss_fn: nn.Module | None = None):
            super(Net, self).__init__(loss_fn=loss_fn)
            self.save_hyperparameters()
            self.layer = nn.Linear(width, 3)

    with pytest.warns(UserWarning, match=r"ignore them using `self.save_hyperparameters\(ignore=\['loss_fn'\]\)`"):
        path = save(Careless(loss_fn=annealed_loss()))
    assert torch.load(path, weights_only=True)["hyper_parameters"] == {"width": 4}
    assert Careless.load_from_checkpoint(path, weights_only=True).loss_fn.epsilon == 0.75


@pytest.mark.filterwarnings("ignore:.*save_hyperparameters")
@pytest.mark.parametrize("required", [False, True])
def test_save_hyperparameters_keeps_a_loss_that_only_it_can_restore(required):
    class Foreign(Net):
        def __init__(self, loss_fn: nn.Module | None = None):
            super(Net, self).__init__(loss_fn=loss_fn)
            self.save_hyperparameters()

    class Required(Net):
        def __init__(self, criterion: nn.Module):
            super(Net, self).__init__(loss_fn=criterion)
            self.save_hyperparameters()

    net = Required(annealed_loss()) if required else Foreign(nn.CrossEntropyLoss())
    checkpoint = {"hyper_parameters": dict(net.hparams)}
    net.on_save_checkpoint(checkpoint)
    assert checkpoint["hyper_parameters"] == dict(net.hparams)
    assert len(net.hparams) == 1


def test_our_checkpoint_loads_strictly_into_a_module_without_us(save):
    class Plain(LightningModule):
        def __init__(self, width: int = 4):
            super().__init__()
            self.layer = nn.Linear(width, 3)

    path = save(Net(loss_fn=annealed_loss()))
    assert Plain.load_from_checkpoint(path, strict=True).layer.in_features == 4


def test_a_newer_format_is_left_alone_with_a_warning(save):
    path = save(Net(loss_fn=annealed_loss()))
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[CHECKPOINT_KEY]["version"] = 99
    torch.save(checkpoint, path)
    with pytest.warns(UserWarning, match="saved in format 99"):
        assert Net.load_from_checkpoint(path).loss_fn.epsilon == 1.0


def test_numpy_scalars_do_not_break_weights_only(save):
    numpy = pytest.importorskip("numpy")
    loss = Poly1CrossEntropyLoss(numpy.float64(0.5), label_smoothing=numpy.float64(0.1), ignore_index=numpy.int64(-1))
    path = save(Net(loss_fn=loss))
    assert Net.load_from_checkpoint(path, weights_only=True).loss_fn.ignore_index == -1


@pytest.mark.condition("LossProvider", "validation and test")
def test_trainer_test_restores_the_epsilon_of_the_checkpoint(save):
    class Tested(Net):
        def test_step(self, batch, batch_idx):
            self.seen = self.loss_fn.epsilon

    net = Tested(loss_fn=annealed_loss())
    path = save(net)
    net.loss_fn.epsilon = 2.0
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    data = torch.utils.data.TensorDataset(torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))
    trainer.test(net, torch.utils.data.DataLoader(data), ckpt_path=str(path), verbose=False)
    assert net.seen == 0.75


# Lightning 2.6.6 wrote it; an older one warns of that.
@pytest.mark.filterwarnings("ignore:The loaded checkpoint was produced with Lightning")
def test_a_checkpoint_of_version_0_1_0_loads_with_its_loss():
    """Written by the release whose losses were laid out differently, after epsilon was annealed from -1 to 2."""
    path = Path(__file__).parent / "saved" / "loss_provider_0_1_0.ckpt"

    class Saved(LossProvider, LightningModule):
        def __init__(self, loss_fn: torch.nn.Module | None = None):
            super().__init__(loss_fn=loss_fn)
            self.layer = torch.nn.Linear(2, 3)

    loss = Saved.load_from_checkpoint(path, map_location="cpu", weights_only=True).loss_fn
    assert type(loss) is Poly1FocalLoss
    assert (loss.epsilon, loss.arguments()["epsilon"]) == (2.0, -1.0)
    assert (loss.gamma, loss.ignore_index, loss.label_smoothing) == (1.5, 255, 0.1)
    assert loss.weight.tolist() == [0.5, 1.0, 2.0]


def test_zero_as_an_integer_is_the_same_argument(recwarn):
    trained = Net(loss_fn=Poly1CrossEntropyLoss(0.5, label_smoothing=0))
    trained.loss_fn.epsilon = 2.0
    checkpoint = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(checkpoint)
    net = Net(loss_fn=Poly1CrossEntropyLoss(0.5))
    net.on_load_checkpoint(checkpoint)
    assert net.loss_fn.epsilon == 2.0
    assert not recwarn.list
