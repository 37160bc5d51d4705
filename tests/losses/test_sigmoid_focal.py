"""The alpha of the sigmoid focal loss: one number, or a buffer with one for each class."""

import copy

import pytest
import torch
from lightning.pytorch import LightningModule

from polyloss_lightning import LossProvider, Poly1SigmoidFocalLoss, poly1_sigmoid_focal_loss

ALPHA = [0.125, 0.25, 1]
INPUT = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
TARGET = torch.eye(3)[[0, 1, 2, 0, 1]]


class Net(LossProvider, LightningModule):
    def __init__(self, loss_fn=None):
        super().__init__(loss_fn=loss_fn)


def test_a_number_is_a_float_and_no_buffer():
    loss = Poly1SigmoidFocalLoss(alpha=1)
    assert isinstance(loss.alpha, float)
    assert not list(loss.buffers())


@pytest.mark.parametrize("alpha", [ALPHA, tuple(ALPHA), torch.tensor(ALPHA)])
def test_one_for_each_class_is_a_buffer_that_no_state_dict_holds(alpha):
    loss = Poly1SigmoidFocalLoss(alpha=alpha)
    assert [name for name, _ in loss.named_buffers()] == ["alpha"]
    assert not loss.state_dict()
    torch.testing.assert_close(loss(INPUT, TARGET), poly1_sigmoid_focal_loss(INPUT, TARGET, alpha=torch.tensor(ALPHA)))
    assert f"alpha={[float(number) for number in ALPHA]}" in repr(loss)
    assert loss.to(torch.float64).alpha.dtype == torch.float64
    assert loss.to("meta").alpha.is_meta
    assert copy.deepcopy(loss).alpha.is_meta


def test_is_no_view_of_the_users_tensor():
    given = torch.tensor(ALPHA)
    loss = Poly1SigmoidFocalLoss(alpha=given)
    given.zero_()
    assert loss.alpha.tolist() == ALPHA


def test_survives_construction_on_the_meta_device():
    with torch.device("meta"):
        assert Poly1SigmoidFocalLoss(alpha=ALPHA).alpha.tolist() == ALPHA


def test_integers_of_a_tensor_are_numbers():
    assert Poly1SigmoidFocalLoss(alpha=torch.tensor([0, 1])).alpha.tolist() == [0.0, 1.0]


def test_travels_in_the_checkpoint(tmp_path):
    checkpoint = {}
    Net(Poly1SigmoidFocalLoss(2.0, alpha=ALPHA)).on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "checkpoint")
    loaded = Net()
    loaded.on_load_checkpoint(torch.load(tmp_path / "checkpoint", weights_only=True))
    assert isinstance(loaded.loss_fn, Poly1SigmoidFocalLoss)
    assert loaded.loss_fn.alpha.tolist() == ALPHA
    assert loaded.loss_fn.epsilon == 2.0


@pytest.mark.filterwarnings("error")
def test_of_the_same_loss_lets_the_checkpoint_restore_its_epsilon():
    checkpoint, saved = {}, Poly1SigmoidFocalLoss(2.0, alpha=ALPHA)
    saved.epsilon = 0.5
    Net(saved).on_save_checkpoint(checkpoint)
    resumed = Net(Poly1SigmoidFocalLoss(2.0, alpha=torch.tensor(ALPHA)))
    resumed.on_load_checkpoint(checkpoint)
    assert resumed.loss_fn.epsilon == 0.5
    with pytest.warns(UserWarning, match="differs from the loss given"):
        Net(Poly1SigmoidFocalLoss(2.0, alpha=[0.5, 0.5, 0.5])).on_load_checkpoint(checkpoint)
