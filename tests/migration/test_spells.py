"""pytorch-lightning-spells 0.3.0: its losses, written from their definitions."""

import pytest
import torch

from polyloss_lightning import Poly1CrossEntropyLoss, Poly1SigmoidFocalLoss


def cross_entropy(input, target, epsilon=1.0, weight=None):
    """With weights, the probability in the correction is multiplied by the weight over the mean weight."""
    p = input.softmax(-1)[torch.arange(len(target)), target]
    if weight is None:
        return -p.log() + epsilon * (1 - p)
    w = weight[target]
    return -w * p.log() + epsilon * (1 - p * w / weight.mean())


def focal(input, target, epsilon=1.0, alpha=0.25, gamma=2.0):
    positive = target.unsqueeze(-1) == torch.arange(input.shape[1])
    p = torch.where(positive, input.sigmoid(), (-input).sigmoid())
    alpha_t = torch.where(positive, alpha, 1 - alpha)
    return -alpha_t * (1 - p) ** gamma * p.log() + epsilon * (1 - p) ** (gamma + 1)


def mixup(input, first, second, share, epsilon):
    return share * cross_entropy(input, first, epsilon) + (1 - share) * cross_entropy(input, second, epsilon)


FORMULAS = {
    "Poly1CrossEntropyLoss(epsilon=2.0)(input, target)": lambda b: cross_entropy(b.input, b.target, 2.0),
    'Poly1CrossEntropyLoss(weight=weight, reduction="mean")(input, target)': lambda b: cross_entropy(
        b.input, b.target, weight=b.weight
    ),
    'Poly1FocalLoss(num_classes=4, reduction="mean")(input, target)': lambda b: focal(b.input, b.target),
    "MixupSoftmaxLoss(poly1_eps=2.0)(input, pairs)": lambda b: mixup(
        b.input, b.pairs[:, 0].long(), b.pairs[:, 1].long(), b.pairs[:, 2], 2.0
    ),
}


def test_numbers_of_the_page(check_page):
    check_page("pytorch-lightning-spells", FORMULAS)


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 1.0, 2.5])
def test_cross_entropy_is_the_same_without_weights(batch, epsilon):
    new = Poly1CrossEntropyLoss(epsilon, reduction="none")(batch.input, batch.target)
    torch.testing.assert_close(new, cross_entropy(batch.input, batch.target, epsilon))


def test_class_weights_shift_the_value_and_divide_epsilon_by_their_mean(batch):
    w, mean = batch.weight[batch.target], batch.weight.mean().item()
    new = Poly1CrossEntropyLoss(2.0 / mean, weight=batch.weight, reduction="none")(batch.input, batch.target)
    old = cross_entropy(batch.input, batch.target, 2.0, batch.weight)
    torch.testing.assert_close(old, new + 2.0 * (1 - w / mean))


def test_the_gradient_of_the_weighted_mean_differs_by_one_factor(batch):
    input = batch.input.clone().requires_grad_()
    loss = Poly1CrossEntropyLoss(2.0 / batch.weight.mean().item(), weight=batch.weight)
    (new,) = torch.autograd.grad(loss(input, batch.target), input)
    (old,) = torch.autograd.grad(cross_entropy(input, batch.target, 2.0, batch.weight).mean(), input)
    torch.testing.assert_close(old, new * batch.weight[batch.target].sum() / len(batch.target))


def test_alpha_of_focal_multiplies_the_correction_too(batch):
    same = Poly1SigmoidFocalLoss(0.0, reduction="none", target_format="class_index")(batch.input, batch.target)
    torch.testing.assert_close(same, focal(batch.input, batch.target, 0.0))
    twice = Poly1SigmoidFocalLoss(2.0, alpha=0.5, reduction="none", target_format="class_index")
    torch.testing.assert_close(twice(batch.input, batch.target), focal(batch.input, batch.target, 1.0, alpha=0.5))


def test_pairs_of_mixup_are_probability_targets(batch):
    first, second, share = batch.pairs[:, 0].long(), batch.pairs[:, 1].long(), batch.pairs[:, 2]
    eye = torch.eye(4, dtype=torch.float64)
    probabilities = share[:, None] * eye[first] + (1 - share)[:, None] * eye[second]
    new = Poly1CrossEntropyLoss(2.0, reduction="none")(batch.input, probabilities)
    torch.testing.assert_close(new, mixup(batch.input, first, second, share, 2.0))
