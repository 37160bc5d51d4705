"""Block by block or in one piece: the same loss, the same derivatives, less memory."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint
from torchvision.ops import sigmoid_focal_loss

import polyloss_lightning as pl
from polyloss_lightning import evaluation

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


FOCAL = pl.Poly1SigmoidFocalLoss
CUTTABLE = {
    "probabilities": (pl.Poly1CrossEntropyLoss, {}, soft),
    "smoothing": (pl.Poly1CrossEntropyLoss, {"label_smoothing": 0.1, "weight": WEIGHT}, index),
    "both": (pl.Poly1CrossEntropyLoss, {"label_smoothing": 0.1, "weight": WEIGHT, "num_terms": 3}, soft),
    "focal": (pl.Poly1FocalLoss, {"gamma": 0.5, "weight": WEIGHT}, soft),
    "binary": (pl.Poly1BCEWithLogitsLoss, {}, multi_hot),
    "binary_soft": (pl.Poly1BCEWithLogitsLoss, {"weight": torch.tensor([2.0])}, fractions),
    "sigmoid_focal": (FOCAL, {}, multi_hot),
    "sigmoid_focal_soft": (FOCAL, {"gamma": 1.5}, fractions),
    "sigmoid_focal_index": (FOCAL, {"target_format": "class_index", "alpha": WEIGHT / 3}, index),
}
cuttable = pytest.mark.parametrize("case", CUTTABLE.values(), ids=CUTTABLE)


@pytest.fixture(params=[1, 6])
def in_blocks(request, monkeypatch):
    """Blocks of few elements; a context that does without."""
    whole = dict(evaluation._BLOCK)
    monkeypatch.setitem(evaluation._BLOCK, "cpu", request.param)

    def without(function):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(evaluation._BLOCK, "cpu", whole["cpu"])
            return function()

    return without


def is_cut(loss):
    node = loss.grad_fn
    while node.next_functions and "InBlocks" not in type(node).__name__:
        node = next(following for following, _ in node.next_functions if following)
    return "InBlocks" in type(node).__name__


def value_and_gradient(function, input):
    input = input.detach().clone().requires_grad_()
    loss = function(input)
    weighing = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).view_as(loss)
    return loss.detach(), torch.autograd.grad((loss * weighing).sum(), input)[0]


@cuttable
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("shape", SHAPES)
def test_cut_or_whole_it_is_the_same(in_blocks, shape, reduction, case):
    make, options, target_of = case
    loss, target = make(EPSILON, reduction=reduction, **options), target_of(shape)
    input = 3 * torch.randn(shape, dtype=torch.float64)
    assert is_cut(loss(input.requires_grad_(), target)) == (input.numel() > 1)
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
        (lambda x: pl.poly1_cross_entropy(x, q, 0.0, **smoothed), lambda x: F.cross_entropy(x, q, **smoothed)),
        (lambda x: pl.poly1_cross_entropy(x, y, 0.0, **smoothed), lambda x: F.cross_entropy(x, y, **smoothed)),
        (
            lambda x: pl.poly1_binary_cross_entropy_with_logits(x, p, 0.0, **factors),
            lambda x: F.binary_cross_entropy_with_logits(x, p, **factors),
        ),
        (
            lambda x: pl.poly1_sigmoid_focal_loss(x, p, 0.0, reduction=reduction),
            lambda x: sigmoid_focal_loss(x, p, reduction=reduction),
        ),
    ):
        torch.testing.assert_close(value_and_gradient(ours, input), value_and_gradient(torchs, input), equal_nan=True)


@cuttable
def test_derivatives_are_those_of_finite_differences(in_blocks, case):
    make, options, target_of = case
    loss, target = make(EPSILON, **options), target_of((3, CLASSES))
    input = torch.randn(3, CLASSES, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: loss(x, target), input)
    assert gradgradcheck(lambda x: loss(x, target), input)


@cuttable
def test_one_tensor_of_the_size_of_the_logits_waits_for_backward(in_blocks, case):
    make, options, target_of = case
    loss, target = make(EPSILON, **options), target_of((64, CLASSES))
    input = torch.randn(64, CLASSES, dtype=torch.float64, requires_grad=True)
    value = loss(input, target)
    node = value.grad_fn
    while "InBlocks" not in type(node).__name__:
        node = node.next_functions[0][0]
    given_ones = {input.data_ptr(), target.data_ptr()}
    own = [t for t in node.saved_tensors if t.data_ptr() not in given_ones and t.numel() >= input.numel()]
    assert len(own) == 1


def test_backward_goes_twice_and_again_through_its_own_graph(in_blocks):
    loss, target = pl.Poly1CrossEntropyLoss(EPSILON), soft((6, CLASSES))
    input = torch.randn(6, CLASSES, dtype=torch.float64, requires_grad=True)
    value = loss(input, target)
    first, second = (torch.autograd.grad(value, input, retain_graph=True)[0] for _ in range(2))
    (third,) = torch.autograd.grad(value, input, create_graph=True)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, third)
    third.pow(2).sum().backward()
    expected = in_blocks(lambda: torch.autograd.functional.hessian(lambda x: loss(x, target), input))
    torch.testing.assert_close(input.grad, 2 * (expected * first).sum((2, 3)))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_under_activation_checkpointing(in_blocks, use_reentrant):
    loss, target = pl.Poly1BCEWithLogitsLoss(EPSILON), multi_hot((6, CLASSES))
    input = torch.randn(6, CLASSES, dtype=torch.float64)

    def run(wrap):
        leaf = input.clone().requires_grad_()
        value = wrap(leaf)
        value.backward()  # the reentrant kind knows no other
        return value.detach(), leaf.grad

    expected = in_blocks(lambda: run(lambda x: loss(x.tanh(), target)))
    actual = run(lambda x: checkpoint(lambda x: loss(x.tanh(), target), x, use_reentrant=use_reentrant))
    torch.testing.assert_close(actual, expected)


def test_inside_an_override_backward_included(in_blocks):
    loss, target = pl.Poly1CrossEntropyLoss(EPSILON), soft((6, CLASSES))
    input = torch.randn(6, CLASSES, dtype=torch.float64)
    expected = in_blocks(lambda: value_and_gradient(lambda x: loss(x, target), input))
    with pl.override_losses(5.0, on_nothing="warn") as override:
        F.cross_entropy(input, target)  # so that the block is not empty
        actual = value_and_gradient(lambda x: loss(x, target), input)
    torch.testing.assert_close(actual, expected)
    assert len(override.call_sites) == 1


def test_observers_see_the_whole_batch_once(in_blocks):
    loss, target = pl.Poly1CrossEntropyLoss(EPSILON, label_smoothing=0.1), index((6, CLASSES))
    input = torch.randn(6, CLASSES, dtype=torch.float64)
    seen = []
    with loss.register_observer(seen.append):
        loss(input.requires_grad_(), target)
        in_blocks(lambda: loss(input, target))
    assert len(seen) == 2
    for cut, whole in zip(*seen, strict=True):
        assert cut == whole if not isinstance(cut, torch.Tensor) else torch.equal(cut, whole)
    assert not seen[0].log_p.requires_grad


class OfTheBatch(pl.Poly1CrossEntropyLoss):
    """Its entries are no entries of a part of the batch."""

    def entries(self, input, target):
        return super().entries(input - input.mean(0), target)


class Named(pl.Poly1CrossEntropyLoss):
    pass


def test_a_subclass_with_entries_of_its_own_stays_whole(in_blocks):
    input = torch.randn(6, CLASSES, requires_grad=True)
    assert not is_cut(OfTheBatch()(input, soft((6, CLASSES)).float()))
    assert is_cut(Named()(input, soft((6, CLASSES)).float()))


def test_what_else_has_a_gradient_stays_whole(in_blocks):
    input, target = torch.randn(6, CLASSES, requires_grad=True), soft((6, CLASSES)).float()
    weight = torch.ones(CLASSES, requires_grad=True)
    for arguments, options, leaf in (
        ((input, target.requires_grad_()), {}, target),
        ((input, target.detach()), {"weight": weight}, weight),
    ):
        (gradient,) = torch.autograd.grad(pl.poly1_cross_entropy(*arguments, **options), leaf)
        assert gradient.abs().sum() > 0
    loss = pl.poly1_binary_cross_entropy_with_logits(input, target.detach(), pos_weight=weight)
    assert torch.autograd.grad(loss, weight)[0].abs().sum() > 0


@pytest.mark.parametrize("target", [torch.full((6,), -100), torch.full((6, CLASSES), -100.0)])
def test_a_mean_of_nothing_moves_nothing(in_blocks, target):
    input = torch.randn(6, CLASSES, requires_grad=True)
    if target.dim() == 1:
        loss = pl.poly1_cross_entropy(input, target, label_smoothing=0.1)
    else:
        loss = pl.poly1_binary_cross_entropy_with_logits(input, target)
    loss.backward()
    assert is_cut(loss)
    assert loss.isnan()
    assert not input.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_at_the_end_alone(in_blocks, dtype):
    input = torch.tensor([[9.0, -9.0, 0.0, 0.0]]).repeat(6, 1).to(dtype).requires_grad_()
    target = F.one_hot(torch.zeros(6, dtype=torch.int64), CLASSES).to(dtype)
    exact = input.detach().double().requires_grad_()
    gradients = []
    for logits in (input, exact):
        loss = pl.poly1_cross_entropy(logits, target.to(logits.dtype), reduction="sum")
        # As a GradScaler does: by itself, the gradient of the second logit is nothing that a float16 could hold.
        gradients.append(torch.autograd.grad(loss, logits, torch.tensor(2.0**12, dtype=loss.dtype))[0])
    assert gradients[0].dtype == dtype
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=2**-7, atol=1e-7)


def test_logits_overwritten_before_backward_raise(in_blocks):
    input = torch.randn(6, CLASSES, requires_grad=True)
    logits = input * 1
    loss = pl.poly1_cross_entropy(logits, soft((6, CLASSES)).float())
    logits.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_does_not_fit_is_refused_with_its_whole_shape(in_blocks):
    input = torch.randn(6, CLASSES, requires_grad=True)
    with pytest.raises(ValueError, match=r"`input` of shape \(6, 4\), got shape \(3,\)"):
        pl.poly1_binary_cross_entropy_with_logits(input, input.detach(), weight=torch.ones(3))
    for length in (5, 7):
        with pytest.raises(ValueError, match=rf"shape \(6,\) .* of shape \(6, 4\), got shape \({length},\)"):
            pl.poly1_cross_entropy(input, torch.zeros(length).long(), label_smoothing=0.1)
        with pytest.raises(ValueError, match=rf"shape of `input`, \(6, 4\), .* got shape \({length}, 4\)"):
            pl.poly1_sigmoid_focal_loss(input, torch.zeros(length, 4))


@given(
    shape=st.lists(st.integers(0, 6), min_size=2, max_size=4),
    limit=st.integers(1, 50),
    axes=st.sets(st.integers(0, 3)),
)
def test_blocks_are_within_the_limit_and_hold_every_element_once(shape, limit, axes):
    input = torch.zeros(shape)
    axes = sorted(axis for axis in axes if axis < len(shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(evaluation._BLOCK, "cpu", limit)
        blocks = evaluation._blocks(input, input, lambda *_: axes)
    if not blocks:
        assert input.numel() < 2 * limit
        return
    whole = math.prod(size for axis, size in enumerate(shape) if axis not in axes)
    for block in blocks:
        input[block] += 1
        assert input[block].numel() <= max(limit, whole)
    assert (input == 1).all()
