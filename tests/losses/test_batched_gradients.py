"""Several gradients in one backward pass, and Jacobians."""

import pytest
import torch
import torch.nn.functional as F

from polyloss_lightning.functional import (
    poly1_binary_cross_entropy_with_logits,
    poly1_cross_entropy,
    poly1_linear_cross_entropy,
)

INPUT = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 3, 1, 1, 2])
Q = torch.rand(5, 4, generator=torch.Generator().manual_seed(1))
WEIGHT = torch.randn(7, 4, generator=torch.Generator().manual_seed(2))
PAIRS = {
    "cross_entropy": (
        lambda x, reduction: poly1_cross_entropy(x, TARGET, 0.0, reduction=reduction),
        lambda x, reduction: F.cross_entropy(x, TARGET, reduction=reduction),
    ),
    "binary": (
        lambda x, reduction: poly1_binary_cross_entropy_with_logits(x, Q, 0.0, reduction=reduction),
        lambda x, reduction: F.binary_cross_entropy_with_logits(x, Q, reduction=reduction),
    ),
    "linear": (
        lambda x, reduction: poly1_linear_cross_entropy(x, WEIGHT, TARGET, epsilon=0.0, reduction=reduction),
        lambda x, reduction: F.cross_entropy(F.linear(x, WEIGHT), TARGET, reduction=reduction),
    ),
}
per_pair = pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS)


@per_pair
@pytest.mark.parametrize("vectorize", [False, True])
def test_jacobian_is_that_of_torch(ours, theirs, vectorize):
    jacobians = [
        torch.autograd.functional.jacobian(lambda x, loss=loss: loss(x, "none"), INPUT, vectorize=vectorize)
        for loss in (ours, theirs)
    ]
    torch.testing.assert_close(*jacobians)


@per_pair
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_batch_of_gradients_of_a_reduced_loss(ours, theirs, reduction):
    batches = []
    for loss in (ours, theirs):
        input = INPUT.clone().requires_grad_()
        factors = torch.tensor([1.0, 2.0, -3.0])
        batches += torch.autograd.grad(loss(input, reduction), input, factors, is_grads_batched=True)
    torch.testing.assert_close(*batches)


@per_pair
def test_vmap_of_the_backward_pass(ours, theirs):
    batches = []
    for loss in (ours, theirs):
        input = INPUT.clone().requires_grad_()
        value = loss(input, "sum")
        batches.append(
            torch.func.vmap(lambda factor, value=value, input=input: torch.autograd.grad(value, input, factor)[0])(
                torch.tensor([1.0, 2.0, -3.0])
            )
        )
    torch.testing.assert_close(*batches)
