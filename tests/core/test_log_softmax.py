"""Log-softmax with all its digits: the formula."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from polyloss_lightning.core.softmax import exact_log_softmax

CLASSES = 4
SHAPES = [(CLASSES,), (6, CLASSES), (3, CLASSES, 5), (2, CLASSES, 3, 2), (0, CLASSES), (0, CLASSES, 2)]


def both(input, dim):
    return torch.stack(exact_log_softmax(input, dim, input.dtype))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_are_log_softmax(shape, scale):
    dim = min(1, len(shape) - 1)
    input = scale * torch.randn(shape, dtype=torch.float64)
    log_p = input.log_softmax(dim)
    torch.testing.assert_close(exact_log_softmax(input, dim, torch.float64), (log_p, -log_p.expm1()))


@pytest.mark.parametrize("lead", [1.0, 10.0, 17.0, 18.420681, 40.0, 80.0])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_both_keep_every_digit_in_float32(lead, index):
    """Of a sample whose first class leads, at that class and at the others."""
    input = torch.tensor([[lead, 0.0, -1.0]], requires_grad=True)
    exact = input.detach().double().requires_grad_()
    rest = torch.stack([exact[:, [k for k in range(3) if k != c]].logsumexp(1) for c in range(3)], 1)
    odds = (exact - rest)[:, index]
    log_p = F.logsigmoid(odds)
    one_minus_p = torch.sigmoid(-odds) if index == 0 else 1 - log_p.exp()  # each as it loses nothing
    for actual, truth in zip(exact_log_softmax(input, 1, torch.float32), (log_p, one_minus_p), strict=True):
        (gradient,) = torch.autograd.grad(actual[:, index], input, retain_graph=True)
        (true_gradient,) = torch.autograd.grad(truth, exact, retain_graph=True)
        torch.testing.assert_close(actual[:, index].double(), truth, rtol=1e-6, atol=1e-37)
        torch.testing.assert_close(gradient.double(), true_gradient, rtol=2e-6, atol=1e-37)


def test_no_class_two_classes_or_one_class_is_confident():
    input = torch.tensor([[0.0, 0.0], [torch.inf, 0.0], [0.0, -torch.inf], [0.2, 0.0]], requires_grad=True)
    log_p, one_minus_p = exact_log_softmax(input, 1, torch.float32)
    torch.testing.assert_close(log_p, input.log_softmax(1), equal_nan=True)
    torch.testing.assert_close(one_minus_p, 1 - input.softmax(1), equal_nan=True)


def test_one_class_alone_is_certain():
    log_p, one_minus_p = exact_log_softmax(torch.randn(3, 1), 1, torch.float32)
    assert not log_p.any()
    assert not one_minus_p.any()


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if 0 not in shape])
def test_derivatives_are_those_of_finite_differences(shape):
    input = (3 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    assert gradcheck(lambda x: both(x, min(1, len(shape) - 1)), input)
    assert gradgradcheck(lambda x: both(x, min(1, len(shape) - 1)), input)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    half = torch.randn(5, CLASSES).to(dtype)
    expected = exact_log_softmax(half.float(), 1, torch.float32)
    torch.testing.assert_close(exact_log_softmax(half, 1, torch.float32), expected)
