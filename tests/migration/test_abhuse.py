"""github.com/abhuse/polyloss-pytorch at ea93b6b: its two losses, written from their definitions."""

import pytest
import torch

from polyloss_lightning import Poly1BCEWithLogitsLoss, Poly1CrossEntropyLoss, Poly1SigmoidFocalLoss


def cross_entropy(input, target, epsilon=1.0, weight=None):
    p = input.softmax(-1)[torch.arange(len(target)), target]
    w = 1.0 if weight is None else weight[target]
    return -w * p.log() + epsilon * (1 - p)


def focal(input, positive, epsilon=1.0, alpha=0.25, gamma=2.0, weight=1.0):
    """Every logit is a two-class problem; alpha and weight are factors of the focal loss, not of its correction."""
    p = torch.where(positive, input.sigmoid(), (-input).sigmoid())
    factor = torch.where(positive, alpha, 1 - alpha) if alpha >= 0 else 1.0
    return -factor * weight * (1 - p) ** gamma * p.log() + epsilon * (1 - p) ** (gamma + 1)


def one_hot(target, classes=4):
    return target.unsqueeze(-1) == torch.arange(classes)


FORMULAS = {
    "Poly1CrossEntropyLoss(num_classes=4)(input, target)": lambda b: cross_entropy(b.input, b.target),
    'Poly1CrossEntropyLoss(4, weight=weight, reduction="mean")(input, target)': lambda b: cross_entropy(
        b.input, b.target, weight=b.weight
    ),
    'Poly1FocalLoss(num_classes=4, reduction="mean")(input, target)': lambda b: focal(b.input, one_hot(b.target)),
    "Poly1FocalLoss(4, alpha=-1)(input, target)": lambda b: focal(b.input, one_hot(b.target), alpha=-1),
    "Poly1FocalLoss(4, alpha=-1, label_is_onehot=True)(input, labels)": lambda b: focal(
        b.input, b.labels == 1, alpha=-1
    ),
}


def test_numbers_of_the_page(check_page):
    check_page("abhuse/polyloss-pytorch", FORMULAS)


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 1.0, 2.5])
def test_cross_entropy_is_the_same_without_weights(batch, epsilon):
    new = Poly1CrossEntropyLoss(epsilon, reduction="none")(batch.input, batch.target)
    torch.testing.assert_close(new, cross_entropy(batch.input, batch.target, epsilon))


def test_class_weights_multiply_the_correction_too_and_divide_the_mean(batch):
    w = batch.weight[batch.target]
    p = batch.input.softmax(-1).gather(1, batch.target[:, None])[:, 0]
    old = cross_entropy(batch.input, batch.target, 2.0, batch.weight)
    new = Poly1CrossEntropyLoss(2.0, weight=batch.weight)(batch.input, batch.target)
    torch.testing.assert_close(new * w.sum(), (old + 2.0 * (w - 1) * (1 - p)).sum())


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 1.0, 2.5])
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_without_alpha_is_the_sigmoid_focal_loss(batch, epsilon, gamma):
    new = Poly1SigmoidFocalLoss(epsilon, alpha=-1.0, gamma=gamma, reduction="none", target_format="class_index")
    old = focal(batch.input, one_hot(batch.target), epsilon, -1, gamma)
    torch.testing.assert_close(new(batch.input, batch.target), old)


def test_alpha_of_focal_multiplies_the_correction_too(batch):
    positive = one_hot(batch.target)
    alpha_t = torch.where(positive, 0.25, 0.75)
    p = torch.where(positive, batch.input.sigmoid(), (-batch.input).sigmoid())
    new = Poly1SigmoidFocalLoss(2.0, reduction="none", target_format="class_index")(batch.input, batch.target)
    torch.testing.assert_close(focal(batch.input, positive, 2.0) - new, 2.0 * (1 - alpha_t) * (1 - p) ** 3)


def test_alpha_of_one_half_is_the_same_with_twice_the_epsilon(batch):
    new = Poly1SigmoidFocalLoss(2.0, alpha=0.5, reduction="none", target_format="class_index")
    torch.testing.assert_close(
        new(batch.input, batch.target), focal(batch.input, one_hot(batch.target), 1.0, alpha=0.5)
    )


def test_positive_weights_belong_to_binary_cross_entropy_which_is_the_focal_loss_of_gamma_0(batch):
    positive, pos_weight = batch.labels == 1, torch.tensor([3.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    old = focal(batch.input, positive, 0.0, -1, 0.0) * torch.where(positive, pos_weight, 1.0)
    new = Poly1BCEWithLogitsLoss(0.0, pos_weight=pos_weight, reduction="none")(batch.input, batch.labels)
    torch.testing.assert_close(new, old)
