"""github.com/yiyixuxu/polyloss-pytorch at 0c4b16c: `PolyLoss` and `PolyBCELoss`, written from their definitions."""

import pytest
import torch

from polyloss_lightning import Poly1BCEWithLogitsLoss, Poly1CrossEntropyLoss, PolyLoss


def cross_entropy(input, target, epsilon=1.0, weight=None):
    """Cross-entropy of the class index, or of the most probable class if the target has probabilities."""
    log_p = input.log_softmax(1)
    q = target if target.is_floating_point() else torch.eye(input.shape[1], dtype=input.dtype)[target]
    index = q.argmax(1)
    w = 1.0 if weight is None else weight[index]
    return -w * log_p[torch.arange(len(index)), index] + epsilon * (1 - (q * log_p.exp()).sum(1))


def binary(input, target, epsilon=1.0):
    """In the correction every target other than 1 is a negative."""
    p = input.sigmoid()
    miss = torch.where(target == 1, 1 - p, p)
    return -target * p.log() - (1 - target) * (1 - p).log() + epsilon * miss


FORMULAS = {
    "PolyLoss()(input, target)": lambda b: cross_entropy(b.input, b.target),
    "PolyLoss(ce_weight=weight)(input, target)": lambda b: cross_entropy(b.input, b.target, weight=b.weight),
    "PolyLoss()(input, probabilities)": lambda b: cross_entropy(b.input, b.probabilities),
    "PolyBCELoss()(input, labels)": lambda b: binary(b.input, b.labels),
    "PolyBCELoss()(input, probabilities)": lambda b: binary(b.input, b.probabilities),
}


def test_numbers_of_the_page(check_page):
    check_page("yiyixuxu/polyloss-pytorch", FORMULAS)


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 2.0])
def test_class_indices_and_one_hot_targets_are_the_same(batch, epsilon):
    new = Poly1CrossEntropyLoss(epsilon, reduction="none")
    for target in (batch.target, torch.eye(4, dtype=torch.float64)[batch.target]):
        torch.testing.assert_close(new(batch.input, target), cross_entropy(batch.input, target, epsilon))


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 2.0])
def test_binary_targets_are_the_same(batch, epsilon):
    new = Poly1BCEWithLogitsLoss(epsilon, reduction="none")(batch.input, batch.labels)
    torch.testing.assert_close(new, binary(batch.input, batch.labels, epsilon))


def test_soft_targets_differ_in_the_cross_entropy_only(batch):
    q, log_p = batch.probabilities, batch.input.log_softmax(1)
    new = Poly1CrossEntropyLoss(2.0, reduction="none")(batch.input, q)
    hard = -log_p[torch.arange(len(q)), q.argmax(1)]
    torch.testing.assert_close(cross_entropy(batch.input, q, 2.0) - new, hard + (q * log_p).sum(1))


def test_soft_binary_targets_differ_in_the_correction_only(batch):
    q, p = batch.probabilities, batch.input.sigmoid()
    new = Poly1BCEWithLogitsLoss(2.0, reduction="none")(batch.input, q)
    torch.testing.assert_close(binary(batch.input, q, 2.0) - new, 2.0 * (p - q * (1 - p) - (1 - q) * p))


def test_their_name_is_the_abstract_base_here():
    with pytest.raises(TypeError, match="must override `entries`"):
        PolyLoss()
