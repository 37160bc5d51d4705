"""The closed form of a linear layer and its loss: memory, what waits for backward, and which gradients are computed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import polyloss_lightning as poly
from polyloss_lightning.core import linear_softmax

ROWS, FEATURES, CLASSES = 512, 4, 4000
LOGITS = 4 * ROWS * CLASSES  # bytes
INDEX = torch.arange(ROWS)


@pytest.fixture
def few_rows(monkeypatch):
    """64 of 512 rows at a time, an eighth of the logits. The rest is temporaries of 4 rows, and gradients.

    Under autocast it is half of that, but torch's product of bfloat16 matrices may hold a float32 result as well.
    """
    monkeypatch.setattr(linear_softmax, "_FEW", 1)
    monkeypatch.setattr(linear_softmax, "_ROWS", 64)
    monkeypatch.setattr(linear_softmax, "_CACHE", 1)


def layer(rows=ROWS, features=FEATURES, classes=CLASSES, dtype=torch.float32):
    return [
        torch.randn(size, dtype=dtype).requires_grad_() for size in ((rows, features), (classes, features), classes)
    ]


def step(loss, input, weight, target, bias, autocast=False):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = loss(input, weight, target, bias)
    if value.requires_grad:
        value.sum().backward()


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"reduction": "none"}], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_the_logits_are_never_held(options, autocast, few_rows, peak):
    input, weight, bias = layer()
    loss = poly.Poly1LinearCrossEntropyLoss(2.0, **options)
    assert 0 < peak(lambda: step(loss, input, weight, INDEX, bias, autocast)) <= 0.22 * LOGITS


def test_of_1024_rows_a_quarter_is_held(peak):
    input, weight, bias = layer(1024, 4, 10_000)
    loss, target = poly.Poly1LinearCrossEntropyLoss(2.0), torch.arange(1024)
    assert peak(lambda: step(loss, input, weight, target, bias)) <= 0.3 * 4 * 1024 * 10_000


def test_of_probabilities_they_are_not_held_either(few_rows, peak):
    input, weight, bias = layer()
    target = torch.randn(ROWS, CLASSES).softmax(1)
    loss = poly.Poly1LinearCrossEntropyLoss(2.0)
    assert peak(lambda: step(loss, input, weight, target, bias)) <= 0.22 * LOGITS


def test_without_gradients_there_are_none(few_rows, peak):
    input, weight, bias = [each.detach() for each in layer()]
    loss = poly.Poly1LinearCrossEntropyLoss(2.0)
    assert peak(lambda: step(loss, input, weight, INDEX, bias)) <= 0.15 * LOGITS


def test_an_observed_loss_holds_one_number_per_sample_more(few_rows, peak):
    input, weight, bias = layer()
    loss, seen = poly.Poly1LinearCrossEntropyLoss(2.0), []
    loss.register_observer(seen.append)
    assert peak(lambda: step(loss, input, weight, INDEX, bias)) <= 0.22 * LOGITS
    assert seen[0].log_p.shape == (ROWS,)


def test_features_of_bfloat16_and_a_weight_of_float32_under_autocast(few_rows, peak):
    input, weight, bias = layer()
    input = input.detach().bfloat16().requires_grad_()
    loss = poly.Poly1LinearCrossEntropyLoss(2.0)
    assert peak(lambda: step(loss, input, weight, INDEX, bias, autocast=True)) <= 0.22 * LOGITS
    assert (input.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)


def saved(function):
    """Where the tensors are that autograd keeps for backward, with their dimensions, and the value."""
    kept = []

    def pack(tensor):
        kept.append((tensor.data_ptr(), tensor.dim()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = function()
    return kept, value


@pytest.mark.closed_form
def test_backward_hands_over_the_gradients_that_forward_computed():
    input, weight, bias = layer(8, 3, 5)
    kept, value = saved(lambda: poly.poly1_linear_cross_entropy(input, weight, INDEX[:8] % 5, linear_bias=bias))
    value.backward()
    assert {(each.grad.data_ptr(), each.dim()) for each in (input, weight, bias)} <= set(kept)


@pytest.mark.closed_form
def test_without_reduction_only_the_arguments_wait_for_backward():
    input, weight, bias = layer(8, 3, 5)
    target = INDEX[:8] % 5
    kept, _ = saved(lambda: poly.poly1_linear_cross_entropy(input, weight, target, linear_bias=bias, reduction="none"))
    assert set(kept) == {(each.data_ptr(), each.dim()) for each in (input, weight, bias, target)}


@pytest.mark.closed_form
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("trained", range(3))
def test_only_the_gradients_that_are_needed_are_computed(reduction, trained):
    given = layer(8, 3, 5)
    for i, each in enumerate(given):
        each.requires_grad_(i == trained)
    input, weight, bias = given
    target = INDEX[:8] % 5
    kept, value = saved(
        lambda: poly.poly1_linear_cross_entropy(input, weight, target, linear_bias=bias, reduction=reduction)
    )
    assert sum(dim > 0 for _, dim in kept) == 4 + (reduction == "mean")  # beside the factor of the gradient
    value.sum().backward()
    expected = poly.poly1_cross_entropy(F.linear(*given), target, reduction=reduction).sum()
    (gradient,) = torch.autograd.grad(expected, given[trained])
    torch.testing.assert_close(given[trained].grad, gradient)
    assert sum(each.grad is not None for each in given) == 1


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_second_derivatives_are_those_of_the_logits(reduction):
    given, target = layer(3, 2, 4, torch.float64), torch.tensor([0, 3, -100])

    def loss(input, weight, bias):
        return poly.poly1_linear_cross_entropy(input, weight, target, linear_bias=bias, reduction=reduction)

    assert torch.autograd.gradcheck(loss, given)
    assert torch.autograd.gradgradcheck(loss, given)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_graph_that_is_kept_gives_the_same_gradients_again(reduction):
    given, target = layer(8, 3, 5), INDEX[:8] % 5
    value = poly.poly1_linear_cross_entropy(*given[:2], target, linear_bias=given[2], reduction=reduction).sum() * 3
    first = torch.autograd.grad(value, given, retain_graph=True)
    second = torch.autograd.grad(value, given)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_a_weight_that_changes_before_backward_is_an_error():
    input, weight, bias = layer(8, 3, 5)
    value = poly.poly1_linear_cross_entropy(input, weight, INDEX[:8] % 5, linear_bias=bias)
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_confident_samples_keep_their_digits():
    input, weight = torch.tensor([[0.0, 22.0], [40.0, 1.0]], requires_grad=True), torch.eye(2)
    value = poly.poly1_linear_cross_entropy(input, weight, torch.tensor([1, 0]), epsilon=1.0, reduction="none")
    logits = input.double()
    nll = torch.log1p(torch.exp(-torch.tensor([22.0, 39.0], dtype=torch.float64)))
    torch.testing.assert_close(value.double(), nll - torch.expm1(-nll), rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), input)
    wanted = torch.tensor([22.0, 39.0], dtype=torch.float64).neg().sigmoid() * 2
    torch.testing.assert_close(gradient.double().abs(), wanted[:, None].expand_as(logits), rtol=1e-5, atol=0)


def test_gradients_of_the_weight_are_added_up_in_float32():
    # In bfloat16, 256 + 1 is 256: of 2,048 equal parts, all but the first few would be lost.
    rows = 8 * 2**10
    input = torch.ones(rows, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2**9, 1, dtype=torch.bfloat16, requires_grad=True)
    target = torch.zeros(rows, dtype=torch.long)
    poly.poly1_linear_cross_entropy(input, weight, target, epsilon=0.0, reduction="sum").backward()
    assert weight.grad[0].item() == pytest.approx(-rows * (1 - 2**-9), rel=2**-8)


def test_a_small_float16_gradient_reaches_the_scaled_loss():
    input, weight = torch.ones(4, 2), nn.Parameter(torch.zeros(2**15, 2))
    target = torch.zeros(4, dtype=torch.long)
    with torch.autocast("cpu", torch.float16):
        value = poly.poly1_linear_cross_entropy(input, weight, target, epsilon=0.0)
    (value * 2**-10).backward()  # 2**-10 / 2**15 is below the smallest float16
    torch.testing.assert_close(weight.grad[1:], torch.full((2**15 - 1, 2), 2.0**-25))


def test_rows_are_cut_into_parts_of_nearly_the_same_size():
    assert linear_softmax._rows(257, 10**5) == 129
    assert linear_softmax._rows(4096, 10**5) == 256
    assert linear_softmax._rows(4096, 10) == 4096


class _Tagged(torch.Tensor):
    """A subclass without a behaviour of its own."""


def test_a_subclass_of_tensor_takes_the_formula():
    input, weight, bias = layer(8, 3, 5)
    target = INDEX[:8] % 5
    value = poly.poly1_linear_cross_entropy(input.detach().as_subclass(_Tagged), weight, target, linear_bias=bias)
    assert type(value) is _Tagged
    expected = poly.poly1_linear_cross_entropy(input, weight, target, linear_bias=bias)
    torch.testing.assert_close(value.as_subclass(torch.Tensor), expected)
