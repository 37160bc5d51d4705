"""Showing what is replaced, or would be."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from polyloss_lightning import polynomial
from polyloss_lightning.interception import LossOverride

LOGITS, TARGET = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, -100, 1])
HOT = torch.randint(2, (6, 3)).float()
CALLS = {
    "cross_entropy": lambda: F.cross_entropy(LOGITS, TARGET, torch.tensor([0.5, 1.0, 2.0]), label_smoothing=0.1),
    "binary_cross_entropy_with_logits": lambda: F.binary_cross_entropy_with_logits(
        LOGITS, HOT, pos_weight=torch.tensor([1.0, 2.0, 3.0])
    ),
    "sigmoid_focal_loss": lambda: sigmoid_focal_loss(LOGITS, HOT, alpha=0.3, gamma=1.5, reduction="sum"),
    "nll_loss": lambda: F.nll_loss(LOGITS.log_softmax(1), TARGET, reduction="sum"),
}


def value_of(observation):
    value = polynomial.value(
        observation.log_p, observation.epsilon, observation.gamma, observation.num_terms, observation.focal_base
    )
    return (observation.weight * value).sum() / observation.denominator


@pytest.mark.parametrize("name", CALLS)
def test_an_observation_is_the_loss_that_was_put_in_place(name):
    override, seen = LossOverride(2.0, losses=[name]), []
    observable = override.observables()[name]
    assert observable.epsilon == 2.0
    with override, observable.register_observer(seen.append):
        loss = CALLS[name]()
    (observation,) = seen
    torch.testing.assert_close(value_of(observation), loss)
    assert not observation.log_p.requires_grad


@pytest.mark.parametrize("name", CALLS)
def test_observing_shows_the_loss_that_would_be_put_in_place_and_changes_nothing(name):
    override, seen = LossOverride(2.0, losses=[name]), []
    with override:
        replaced = CALLS[name]()
    with override.intercepting(replace=False), override.observables()[name].register_observer(seen.append):
        loss = CALLS[name]()
    assert torch.equal(loss, CALLS[name]())
    torch.testing.assert_close(value_of(*seen), replaced)
    assert len(override.call_sites) == 1


def test_observing_follows_scope_and_selection_and_leaves_elementwise_losses_in_peace():
    override, seen = LossOverride(2.0, losses=["cross_entropy"], elementwise="error"), []
    with override.intercepting(replace=False), override.observables()["cross_entropy"].register_observer(seen.append):
        CALLS["sigmoid_focal_loss"]()
        F.cross_entropy(LOGITS, TARGET, reduction="none")
    assert seen == []


def test_each_function_has_its_own_observers_and_a_removed_one_sees_nothing():
    override, seen = LossOverride(2.0, losses=list(CALLS)), {name: [] for name in CALLS}
    handles = [loss.register_observer(seen[name].append) for name, loss in override.observables().items()]
    with override:
        CALLS["cross_entropy"]()
        for handle in handles:
            handle.remove()
        CALLS["sigmoid_focal_loss"]()
    assert {name: len(observations) for name, observations in seen.items() if observations} == {"cross_entropy": 1}
    assert not override.observed
