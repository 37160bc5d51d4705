"""The mixin itself: the classes and losses that it accepts, and the module that has it."""

import io

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from polyloss_lightning import LossProvider, Poly1CrossEntropyLoss


class Net(LossProvider, LightningModule):
    def __init__(self, width: int = 4, loss_fn: nn.Module | None = None):
        super().__init__(loss_fn=loss_fn)
        self.save_hyperparameters(ignore=["loss_fn"])
        self.layer = nn.Linear(width, 3)


def annealed_loss() -> Poly1CrossEntropyLoss:
    loss = Poly1CrossEntropyLoss(epsilon=-1.0, weight=[1.0, 2.0, 0.5], label_smoothing=0.1)
    loss.epsilon = 0.75
    return loss


def test_default_loss_is_poly1_cross_entropy():
    assert isinstance(Net().loss_fn, Poly1CrossEntropyLoss)
    assert Net().loss_fn.epsilon == 1.0


def test_any_module_is_a_loss():
    net = Net(loss_fn=nn.CrossEntropyLoss(reduction="sum"))
    input, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    torch.testing.assert_close(
        net.compute_loss(input, target), nn.functional.cross_entropy(input, target, reduction="sum")
    )


def test_compute_loss_forwards_keywords():
    class Scaled(nn.Module):
        def forward(self, input, target, scale):
            return scale * (input - target).sum()

    assert Net(loss_fn=Scaled()).compute_loss(torch.tensor(3.0), torch.tensor(1.0), scale=4.0) == 8.0


@pytest.mark.parametrize("loss_fn", [Poly1CrossEntropyLoss, "cross_entropy", nn.functional.cross_entropy])
def test_a_loss_that_is_no_module_is_an_error_with_its_value(loss_fn):
    with pytest.raises(TypeError, match=r"`loss_fn` must be a torch\.nn\.Module"):
        Net(loss_fn=loss_fn)


@pytest.mark.condition(
    "LossProvider", "mixin to the right of LightningModule", refused="its constructor and hooks would not run"
)
def test_right_of_lightning_module_is_an_error_at_class_creation():
    with pytest.raises(
        TypeError, match=r"write `class Wrong\(LossProvider, ...\)`, got \(LightningModule, LossProvider\)"
    ):
        type("Wrong", (LightningModule, LossProvider), {})


def test_left_of_a_subclass_of_lightning_module_is_fine():
    class Foreign(LightningModule):
        pass

    assert type("Right", (LossProvider, Foreign), {})().loss_fn.epsilon == 1.0


@pytest.mark.parametrize("taken", [lambda self: None, property(lambda self: None), None, 3])
def test_a_loss_fn_of_the_users_class_is_an_error_at_class_creation(taken):
    with pytest.raises(TypeError, match="`loss_fn` is an attribute of LossProvider, and Taken defines it"):
        type("Taken", (LossProvider, LightningModule), {"loss_fn": taken})


def test_a_hidden_compute_loss_is_an_error_and_a_refined_one_is_not():
    foreign = type("Foreign", (LightningModule,), {"compute_loss": lambda self, batch: 0})
    with pytest.raises(TypeError, match="`compute_loss` is an attribute of LossProvider, and Foreign defines it"):
        type("Hiding", (LossProvider, foreign), {})
    type("Refining", (LossProvider, LightningModule), {"compute_loss": lambda self, batch: 0})


def test_state_dict_has_no_key_of_the_loss():
    assert set(Net(loss_fn=annealed_loss()).state_dict()) == {"layer.weight", "layer.bias"}


@pytest.mark.condition("LossProvider", "copy and pickle")
def test_the_module_pickles():
    net = Net(loss_fn=annealed_loss())
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=False).loss_fn.epsilon == 0.75


# The method has been deprecated by Lightning, and TorchScript by torch.
@pytest.mark.filterwarnings("ignore:.*(to_torchscript|torch.jit)")
class TestTorchScript:
    class Forward(Net):
        def forward(self, input):
            return self.layer(input)

    class ForwardWithLoss(Net):
        def forward(self, input):
            return self.compute_loss(self.layer(input), input.argmax(1) % 3)

    @pytest.mark.parametrize("method", ["script", "trace"])
    def test_a_forward_without_the_loss_is_compiled(self, method):
        net, input = self.Forward(loss_fn=annealed_loss()), torch.randn(1, 4)
        order = list(net._modules)
        compiled = net.to_torchscript(method=method, example_inputs=input)
        torch.testing.assert_close(compiled(input), net(input))
        assert list(net._modules) == order
        assert net.loss_fn.epsilon == 0.75

    def test_a_forward_that_calls_the_loss_is_one_clear_error(self):
        net = self.ForwardWithLoss()
        with pytest.raises(RuntimeError, match=r"^TorchScript cannot compile the loss that ForwardWithLoss\.forward"):
            net.to_torchscript()
        assert net.loss_fn.epsilon == 1.0
