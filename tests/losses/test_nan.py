"""A NaN stays where it is: the losses of the other samples and elements are those without it."""

import pytest
import torch
import torch.nn.functional as F

from polyloss_lightning.functional import (
    poly1_binary_cross_entropy_with_logits,
    poly1_cross_entropy,
    poly1_linear_cross_entropy,
)

NAN, INF = torch.nan, torch.inf


@pytest.mark.parametrize("target", [[-100, 0], [0, 0]], ids=["ignored", "counted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_confident_wrong_sample_beside_a_nan_has_its_exact_loss(target, smoothing):
    input, target = torch.tensor([[NAN, NAN, NAN], [0.0, 200.0, 0.0]]), torch.tensor(target)
    actual = poly1_cross_entropy(input, target, 0.0, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(actual[1], F.cross_entropy(input[1], target[1], label_smoothing=smoothing))


def test_a_confident_wrong_sample_beside_a_nan_has_its_exact_gradient():
    input = torch.tensor([[NAN, NAN, NAN], [0.0, 200.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(poly1_cross_entropy(input, torch.tensor([-100, 0]), 0.0), input)
    torch.testing.assert_close(gradient[1], torch.tensor([-1.0, 1.0, 0.0]))


def test_so_it_is_for_the_linear_loss():
    input, weight = torch.tensor([[NAN], [1.0]]), torch.tensor([[0.0], [1500.0], [0.0]])
    actual = poly1_linear_cross_entropy(input, weight, torch.tensor([0, 0]), epsilon=0.0, reduction="none")
    assert actual[1] == 1500


def test_an_impossible_negative_beside_a_nan_has_no_loss():
    input, target = torch.tensor([NAN, -INF, 1.0]), torch.tensor([0.5, 0.0, 0.3])
    actual = poly1_binary_cross_entropy_with_logits(input, target, 2.0, reduction="none")
    assert actual[0].isnan()
    assert actual[1] == 0
    assert actual[2].isfinite()


def test_targets_beside_a_nan_are_ignored_as_without_it():
    input, target = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([NAN, -100.0, 1.0])
    actual = poly1_binary_cross_entropy_with_logits(input, target, 0.0, reduction="none")
    assert actual[0].isnan()
    assert actual[1] == 0
    torch.testing.assert_close(actual[2], F.softplus(torch.tensor(-3.0)))
