"""Activation checkpointing, where a loss is computed again in the backward pass."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from polyloss_lightning import poly1_cross_entropy
from polyloss_lightning.interception import LossOverrideError, override_losses
from polyloss_lightning.interception.backward import BACKWARD_PASSES

TARGET = torch.tensor([0, 1, 2, 0])


@pytest.fixture
def logits():
    return torch.randn(4, 3, requires_grad=True)


def loss(logits):
    return F.cross_entropy(logits * 2, TARGET)


@pytest.mark.parametrize("call", [F.cross_entropy, torch.nn.CrossEntropyLoss()])
def test_a_loss_in_reentrant_checkpointing_is_refused(logits, call):
    with pytest.raises(LossOverrideError, match="use_reentrant=False"), override_losses(2.0):
        checkpoint(call, logits, TARGET, use_reentrant=True)


def test_a_loss_beside_reentrant_checkpointing_and_one_without_gradient_are_replaced(logits):
    with override_losses(2.0):
        hidden = checkpoint(torch.sin, logits, use_reentrant=True)
        with torch.no_grad():
            monitored = loss(hidden)
        value = loss(hidden)
    assert torch.equal(monitored, value)
    torch.testing.assert_close(value, poly1_cross_entropy(logits.sin() * 2, TARGET, 2.0))


def by_backward(value, logits):
    value.backward()
    return logits.grad


def by_grad(value, logits):
    return torch.autograd.grad(value, logits)[0]


# Before torch had a way to run a function in the mode that intercepts it, by_grad ends in torch's own error.
PASSES = [by_backward, by_grad] if torch.autograd.grad in BACKWARD_PASSES else [by_backward]


@pytest.mark.parametrize("backward", PASSES)
def test_a_loss_in_other_checkpointing_has_the_gradient_of_the_replaced_loss(logits, backward):
    seen = []
    with override_losses(2.0) as override, override.observables()["cross_entropy"].register_observer(seen.append):
        value = checkpoint(loss, logits, use_reentrant=False)
        gradient = backward(value, logits)
    expected = poly1_cross_entropy(logits * 2, TARGET, 2.0)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
    assert len(seen) == override.call_sites[0].calls == 1  # not again in the backward pass


def test_a_backward_pass_out_of_the_block_is_an_error_of_torch_not_a_wrong_gradient(logits):
    with override_losses(2.0):
        value = checkpoint(loss, logits, use_reentrant=False)
    with pytest.raises(RuntimeError, match="different"):
        value.backward()
