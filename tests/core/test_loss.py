"""Block by block or in one piece: the same loss, the same derivatives, less memory."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint
from torchvision.ops import sigmoid_focal_loss

import polyloss_lightning as poly
from polyloss_lightning.core import blocks

CLASSES = 4
SHAPES = [(5, CLASSES), (3, CLASSES, 5), (2, CLASSES, 3, 2), (1, CLASSES, 7), (0, CLASSES)]
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
EPSILON = (-0.5, 0.25)


def soft(shape):
    return torch.randn(shape, dtype=torch.float64).softmax(1)


def index(shape):
    target = torch.randint(CLASSES, (shape[0], *shape[2:]))
    return target.where(torch.rand(target.shape) < 0.7, -100)


def multi_hot(shape):
    target = torch.rand(shape, dtype=torch.float64).round()
    return target.where(torch.rand(shape) < 0.8, -100)


def fractions(shape):
    return torch.rand(shape, dtype=torch.float64)


def correction(log_p):
    return sum(e * (1 - log_p.exp()) ** j for j, e in enumerate(EPSILON, start=1)).mean()


SOFT, INDEX = soft((6, CLASSES)), torch.tensor([0, 1, 2, 3, 3, 1])
FOCAL = poly.Poly1SigmoidFocalLoss
CASES = {
    "probabilities": (poly.Poly1CrossEntropyLoss, {}, soft),
    "smoothing": (poly.Poly1CrossEntropyLoss, {"label_smoothing": 0.1, "weight": WEIGHT}, index),
    "both": (poly.Poly1CrossEntropyLoss, {"label_smoothing": 0.1, "weight": WEIGHT, "num_terms": 3}, soft),
    "focal": (poly.Poly1FocalLoss, {"gamma": 0.5, "weight": WEIGHT}, soft),
    "binary": (poly.Poly1BCEWithLogitsLoss, {}, multi_hot),
    "binary_soft": (poly.Poly1BCEWithLogitsLoss, {"weight": torch.tensor([2.0])}, fractions),
    "sigmoid_focal": (FOCAL, {}, multi_hot),
    "sigmoid_focal_soft": (FOCAL, {"gamma": 1.5}, fractions),
    "sigmoid_focal_index": (FOCAL, {"target_format": "class_index", "alpha": WEIGHT / 3}, index),
}
with_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def value_and_gradient(function, input):
    input = input.detach().clone().requires_grad_()
    loss = function(input)
    weighing = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).view_as(loss)
    return loss.detach(), torch.autograd.grad((loss * weighing).sum(), input)[0]


@with_cases
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_blocks_or_whole_it_is_the_same(in_blocks, takes_closed_form, shape, reduction, case):
    make, options, target_of = case
    loss, target = make(EPSILON, reduction=reduction, **options), target_of(shape)
    input = 3 * torch.randn(shape, dtype=torch.float64)
    assert takes_closed_form(loss(input.requires_grad_(), target)) == (input.numel() > 1)
    for function in (lambda x: loss(x, target), lambda x: loss.base_loss(x, target)):
        expected = in_blocks(lambda function=function: value_and_gradient(function, input))
        torch.testing.assert_close(value_and_gradient(function, input), expected, equal_nan=True)
        with torch.no_grad():
            torch.testing.assert_close(function(input), expected[0], equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_at_epsilon_zero_it_is_torch(in_blocks, shape, reduction):
    input, q, y, p = 3 * torch.randn(shape, dtype=torch.float64), soft(shape), index(shape), fractions(shape)
    pos_weight = 1 + torch.rand(shape[-1:], dtype=torch.float64)
    smoothed = {"weight": WEIGHT, "label_smoothing": 0.2, "reduction": reduction}
    factors = {"pos_weight": pos_weight, "weight": fractions(shape), "reduction": reduction}
    for ours, torchs in (
        (lambda x: poly.poly1_cross_entropy(x, q, 0.0, **smoothed), lambda x: F.cross_entropy(x, q, **smoothed)),
        (lambda x: poly.poly1_cross_entropy(x, y, 0.0, **smoothed), lambda x: F.cross_entropy(x, y, **smoothed)),
        (
            lambda x: poly.poly1_binary_cross_entropy_with_logits(x, p, 0.0, **factors),
            lambda x: F.binary_cross_entropy_with_logits(x, p, **factors),
        ),
        (
            lambda x: poly.poly1_sigmoid_focal_loss(x, p, 0.0, reduction=reduction),
            lambda x: sigmoid_focal_loss(x, p, reduction=reduction),
        ),
    ):
        torch.testing.assert_close(value_and_gradient(ours, input), value_and_gradient(torchs, input), equal_nan=True)


@with_cases
def test_derivatives_are_those_of_finite_differences(in_blocks, case):
    make, options, target_of = case
    loss, target = make(EPSILON, **options), target_of((3, CLASSES))
    input = torch.randn(3, CLASSES, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: loss(x, target), input)
    assert gradgradcheck(lambda x: loss(x, target), input)


@pytest.mark.closed_form
def test_a_training_batch_takes_few_calls_in_few_files(monkeypatch):
    monkeypatch.setattr(blocks, "SMALLEST", 1 << 14)  # also with --path blocks
    loss, calls = poly.Poly1CrossEntropyLoss(), []
    input, target = torch.randn(256, 10, requires_grad=True), torch.randint(10, (256,))
    root = str(Path(poly.__file__).parent)

    def count(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            calls.append(frame.f_code.co_filename)

    sys.setprofile(count)
    try:
        loss(input, target).backward()
    finally:
        sys.setprofile(None)
    assert 5 <= len(calls) <= 10
    assert len(set(calls)) <= 5


@pytest.mark.closed_form
@with_cases
def test_one_tensor_of_the_size_of_the_logits_waits_for_backward(in_blocks, case):
    make, options, target_of = case
    loss, target = make(EPSILON, **options), target_of((64, CLASSES))
    input = torch.randn(64, CLASSES, dtype=torch.float64, requires_grad=True)
    value = loss(input, target)
    node = value.grad_fn
    while "ClosedForm" not in type(node).__name__:
        node = node.next_functions[0][0]
    given_ones = {input.data_ptr(), target.data_ptr()}
    own = [
        t for t in node.saved_tensors if t is not None and t.data_ptr() not in given_ones and t.numel() >= input.numel()
    ]
    assert len(own) == 1


def test_backward_goes_twice_and_again_through_its_own_graph(in_blocks):
    loss, target = poly.Poly1CrossEntropyLoss(EPSILON), soft((6, CLASSES))
    input = torch.randn(6, CLASSES, dtype=torch.float64, requires_grad=True)
    value = loss(input, target)
    first, second = (torch.autograd.grad(value, input, retain_graph=True)[0] for _ in range(2))
    (third,) = torch.autograd.grad(value, input, create_graph=True)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, third)
    third.pow(2).sum().backward()
    expected = in_blocks(lambda: torch.autograd.functional.hessian(lambda x: loss(x, target), input))
    torch.testing.assert_close(input.grad, 2 * (expected * first).sum((2, 3)))


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_of_the_logits_run_once(in_blocks, create_graph):
    input = torch.randn(6, CLASSES, dtype=torch.float64, requires_grad=True)
    loss, target = poly.Poly1CrossEntropyLoss(EPSILON), soft((6, CLASSES))
    expected = in_blocks(lambda: torch.autograd.grad(loss(input, target), input)[0])
    input.register_hook(lambda gradient: 2 * gradient)
    (gradient,) = torch.autograd.grad(loss(input, target), input, create_graph=create_graph)
    torch.testing.assert_close(gradient, 2 * expected)


@pytest.mark.closed_form
def test_hooks_of_saved_tensors_see_what_waits_for_backward(in_blocks):
    input = torch.randn(6, CLASSES, requires_grad=True)
    loss, target = poly.Poly1CrossEntropyLoss(EPSILON), soft((6, CLASSES)).float()
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: seen.append(tensor.numel()) or tensor, lambda t: t):
        loss(input, target)
    assert seen.count(input.numel()) == 3  # logits, target and gradient
    with torch.autograd.graph.disable_saved_tensors_hooks("there are none"):
        torch.testing.assert_close(loss(input, target), in_blocks(lambda: loss(input, target)))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_under_activation_checkpointing(in_blocks, use_reentrant):
    loss, target = poly.Poly1BCEWithLogitsLoss(EPSILON), multi_hot((6, CLASSES))
    input = torch.randn(6, CLASSES, dtype=torch.float64)

    def run(wrap):
        leaf = input.clone().requires_grad_()
        value = wrap(leaf)
        value.backward()  # the reentrant kind knows no other
        return value.detach(), leaf.grad

    runs = []

    def part(x):
        runs.append(torch.is_grad_enabled())
        return loss(x.tanh(), target)

    expected = in_blocks(lambda: run(part))
    runs.clear()
    torch.testing.assert_close(run(lambda x: checkpoint(part, x, use_reentrant=use_reentrant)), expected)
    assert runs == [not use_reentrant, True]  # forward, and once more in backward


def test_inside_an_override_backward_included(in_blocks):
    loss, target = poly.Poly1CrossEntropyLoss(EPSILON), soft((6, CLASSES))
    input = torch.randn(6, CLASSES, dtype=torch.float64)
    expected = in_blocks(lambda: value_and_gradient(lambda x: loss(x, target), input))
    with poly.override_losses(5.0, on_nothing="warn") as override:
        F.cross_entropy(input, target)  # so that the block is not empty
        actual = value_and_gradient(lambda x: loss(x, target), input)
    torch.testing.assert_close(actual, expected)
    assert len(override.call_sites) == 1


@pytest.mark.parametrize(
    ("torchs", "ours", "cut"),
    [
        (lambda x: F.cross_entropy(x, SOFT), lambda x: poly.poly1_cross_entropy(x, SOFT, EPSILON), True),
        (
            lambda x: F.binary_cross_entropy_with_logits(x, SOFT, pos_weight=WEIGHT),
            lambda x: poly.poly1_binary_cross_entropy_with_logits(x, SOFT, EPSILON, pos_weight=WEIGHT),
            True,
        ),
        (lambda x: F.nll_loss(x, INDEX), lambda x: -x[range(6), INDEX].mean() + correction(x[range(6), INDEX]), False),
    ],
)
def test_replaced_losses_have_the_closed_form_too(in_blocks, takes_closed_form, torchs, ours, cut):
    input = torch.randn(6, CLASSES, dtype=torch.float64).log_softmax(1)
    with poly.override_losses(EPSILON, losses=["cross_entropy", "binary_cross_entropy_with_logits", "nll_loss"]):
        actual = value_and_gradient(torchs, input)
        assert takes_closed_form(torchs(input.clone().requires_grad_())) == cut
    torch.testing.assert_close(actual, value_and_gradient(ours, input))


def test_observers_see_the_whole_batch_once(in_blocks):
    loss, target = poly.Poly1CrossEntropyLoss(EPSILON, label_smoothing=0.1), index((6, CLASSES))
    input = torch.randn(6, CLASSES, dtype=torch.float64)
    seen = []
    with loss.register_observer(seen.append):
        loss(input.requires_grad_(), target)
        in_blocks(lambda: loss(input, target))
    assert len(seen) == 2
    for cut, whole in zip(*seen, strict=True):
        if isinstance(cut, torch.Tensor):
            torch.testing.assert_close(cut, whole, rtol=1e-14, atol=0)
        else:
            assert cut == whole
    assert not seen[0].log_p.requires_grad
