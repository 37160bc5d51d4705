"""No loss has a value or derivative that is not finite."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from polyloss_lightning import (
    poly1_binary_cross_entropy_with_logits,
    poly1_cross_entropy,
    poly1_focal_loss,
    poly1_sigmoid_focal_loss,
)

INF = torch.inf
GAMMAS = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0]
SIZES = [0, 1, 5, 10, 17, 20, 30, 40, 60, 80, 87, 88, 95, 100, 104, 200, 1e3, 1e4]
ROWS = [
    row
    for s in SIZES
    for row in ([s, 0, 0], [0, s, 0], [-s, 0, 0], [-s, s, 0], [s, s, s], [s, -INF, -INF], [s, 0, -INF], [-s, 1, -INF])
]
LOGITS = torch.tensor(ROWS, dtype=torch.float32)
INDEX = torch.zeros(len(LOGITS), dtype=torch.int64)
HARD = torch.tensor([1.0, 0.0, 0.0]).expand_as(LOGITS)
SOFT = torch.where((LOGITS == -INF).any(1, keepdim=True), HARD, torch.tensor([0.7, 0.3, 0.0]))
SOFT_SIGMOID = torch.where(LOGITS == -INF, 0.0, torch.tensor([0.6, 0.2, 1.0]))

LOSSES = {
    "cross_entropy": lambda x, gamma, **options: poly1_cross_entropy(x, INDEX, **options),
    "cross_entropy_soft": lambda x, gamma, **options: poly1_cross_entropy(x, SOFT, **options),
    "binary": lambda x, gamma, **options: poly1_binary_cross_entropy_with_logits(x, HARD, **options),
    "binary_soft": lambda x, gamma, **options: poly1_binary_cross_entropy_with_logits(x, SOFT_SIGMOID, **options),
    "focal": lambda x, gamma, **options: poly1_focal_loss(x, INDEX, gamma=gamma, **options),
    "focal_soft": lambda x, gamma, **options: poly1_focal_loss(x, SOFT, gamma=gamma, **options),
    "sigmoid_focal": lambda x, gamma, **options: poly1_sigmoid_focal_loss(x, HARD, gamma=gamma, **options),
    "sigmoid_focal_soft": lambda x, gamma, **options: poly1_sigmoid_focal_loss(x, SOFT_SIGMOID, gamma=gamma, **options),
}
with_losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@with_losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_value_gradient_and_second_derivative_are_finite(loss, dtype, autocast):
    for gamma, epsilon, num_terms in itertools.product(GAMMAS, (0.0, 1.0, [-1.0, 2.0, 0.5]), (None, 3)):
        input = LOGITS.to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss(input, gamma, epsilon=epsilon, num_terms=num_terms, reduction="none")
        (gradient,) = torch.autograd.grad(value.sum(), input, create_graph=True)
        (second,) = torch.autograd.grad((gradient * torch.randn_like(gradient)).sum(), input)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert second.isfinite().all()


@pytest.mark.parametrize("loss", [poly1_cross_entropy, poly1_focal_loss])
def test_an_impossible_target_costs_infinity_as_in_torch(loss):
    input = torch.tensor([[-INF, 1.0, 0.0]])
    assert loss(input, torch.tensor([0])) == INF
    assert F.cross_entropy(input, torch.tensor([0])) == INF
