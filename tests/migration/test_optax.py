"""optax 0.2.8: `poly_loss_cross_entropy` and `sigmoid_focal_loss`, written from their definitions."""

import pytest
import torch

from polyloss_lightning import poly1_cross_entropy, poly1_sigmoid_focal_loss


def cross_entropy(logits, labels, epsilon=2.0):
    p = logits.softmax(-1)
    return (labels * (-p.log() + epsilon * (1 - p))).sum(-1)


def focal(logits, labels, alpha=None, gamma=2.0):
    p = logits.sigmoid()
    miss = labels * (1 - p) + (1 - labels) * p
    loss = miss**gamma * (-labels * p.log() - (1 - labels) * (1 - p).log())
    return loss if alpha is None else (alpha * labels + (1 - alpha) * (1 - labels)) * loss


FORMULAS = {
    "poly_loss_cross_entropy(input, probabilities)": lambda b: cross_entropy(b.input, b.probabilities),
    "sigmoid_focal_loss(input, labels)": lambda b: focal(b.input, b.labels),
}

# Published in the tests of optax, computed there with the code of the paper: logits, labels, loss for each epsilon.
PUBLISHED = [
    (
        [0.14, 1.456, 2.356, -0.124, -2.47],
        [0.1, 0.15, 0.2, 0.25, 0.3],
        {2: 4.5317, 1: 3.7153, 0: 2.8990, -0.5: 2.4908, -1: 2.0827, 5.45: 7.3480},
    ),
    (
        [[4.0, 2.0, 1.0], [0.0, 5.0, 1.0]],
        [[1.0, 0.0, 0.0], [0.0, 0.8, 0.2]],
        {2: [0.4823, 1.2567], 1: [0.3261, 1.0407], 0: [0.1698, 0.8247], -0.5: [0.0917, 0.7168]},
    ),
]


def test_numbers_of_the_page(check_page):
    check_page("optax", FORMULAS)


@pytest.mark.parametrize(("logits", "labels", "values"), PUBLISHED, ids=["one sample", "two samples"])
def test_published_values(logits, labels, values):
    logits, labels = torch.tensor(logits), torch.tensor(labels)
    for epsilon, value in values.items():
        expected = torch.tensor(value)
        torch.testing.assert_close(cross_entropy(logits, labels, epsilon), expected, atol=6e-5, rtol=0)
        new = poly1_cross_entropy(logits, labels, epsilon, reduction="none")
        torch.testing.assert_close(new, expected, atol=6e-5, rtol=0)


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 2.0])
def test_cross_entropy_is_the_same(batch, epsilon):
    new = poly1_cross_entropy(batch.input, batch.probabilities, epsilon, reduction="none")
    torch.testing.assert_close(new, cross_entropy(batch.input, batch.probabilities, epsilon))


def test_the_class_axis_is_the_second_here_and_the_last_there(batch):
    pixels = torch.randn(2, 5, 3, dtype=torch.float64)
    labels = torch.rand(2, 5, 3, dtype=torch.float64).softmax(-1)
    new = poly1_cross_entropy(pixels.movedim(-1, 1), labels.movedim(-1, 1), 2.0, reduction="none")
    torch.testing.assert_close(new, cross_entropy(pixels, labels))


@pytest.mark.parametrize(("alpha", "here"), [(None, -1.0), (0.25, 0.25)])
def test_focal_is_the_same_for_soft_labels_too(batch, alpha, here):
    for labels in (batch.labels, batch.probabilities):
        new = poly1_sigmoid_focal_loss(batch.input, labels, epsilon=0.0, alpha=here, reduction="none")
        torch.testing.assert_close(new, focal(batch.input, labels, alpha))
