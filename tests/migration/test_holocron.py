"""Holocron (pylocron 0.3.0): `poly_loss` and `PolyLoss`, written from their definitions."""

import pytest
import torch

from polyloss_lightning import Poly1CrossEntropyLoss, poly1_cross_entropy


def class_indices(input, target, eps=2.0, weight=None, ignore_index=-100):
    p = input.softmax(1)[torch.arange(len(target)), target]
    w = 1.0 if weight is None else weight[target]
    return (w * (-p.log() + eps * (1 - p)))[target != ignore_index]


def probabilities(input, target, eps=2.0):
    """The target is an exponent of the probability in the correction: sum_k (1 - p_k ** q_k)."""
    p = input.softmax(1)
    return (-target * p.log() + eps * (1 - p**target)).sum(1)


FORMULAS = {
    "poly_loss(input, target)": lambda b: class_indices(b.input, b.target),
    "PolyLoss(eps=1.0, weight=weight)(input, target)": lambda b: class_indices(b.input, b.target, 1.0, b.weight),
    "PolyLoss(ignore_index=3)(input, target)": lambda b: class_indices(b.input, b.target, ignore_index=3),
    "poly_loss(input, probabilities)": lambda b: probabilities(b.input, b.probabilities),
}


def test_numbers_of_the_page(check_page):
    check_page("Holocron", FORMULAS)


@pytest.mark.parametrize("eps", [-1.0, 0.0, 2.0])
def test_class_indices_are_the_same(batch, eps):
    new = poly1_cross_entropy(batch.input, batch.target, eps, reduction="none")
    torch.testing.assert_close(new, class_indices(batch.input, batch.target, eps))


def test_weights_multiply_every_term_in_both_and_divide_the_mean_here(batch):
    old = class_indices(batch.input, batch.target, 1.0, batch.weight)
    new = Poly1CrossEntropyLoss(1.0, weight=batch.weight)
    torch.testing.assert_close(new(batch.input, batch.target), old.sum() / batch.weight[batch.target].sum())


def test_probabilities_differ_in_the_correction_unless_they_are_0_and_1(batch):
    q, p = batch.probabilities, batch.input.softmax(1)
    new = poly1_cross_entropy(batch.input, q, 2.0, reduction="none")
    difference = 2.0 * ((1 - p**q) - q * (1 - p)).sum(1)
    torch.testing.assert_close(probabilities(batch.input, q) - new, difference)
    assert difference.min() > 0.1
    hard = torch.eye(4, dtype=torch.float64)[batch.target]
    torch.testing.assert_close(
        probabilities(batch.input, hard), poly1_cross_entropy(batch.input, hard, 2.0, reduction="none")
    )
