"""What gets the closed form, what gets the formula, and what happens at the edges."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.autograd import forward_ad

import polyloss_lightning as poly
from polyloss_lightning.core import blocks

CLASSES = 4


def soft(shape):
    return torch.randn(shape, dtype=torch.float64).softmax(1)


class OfTheBatch(poly.Poly1CrossEntropyLoss):
    """Its entries are no entries of a part of the batch."""

    def entries(self, input, target):
        return super().entries(input - input.mean(0), target)


class Named(poly.Poly1CrossEntropyLoss):
    pass


def test_a_subclass_with_entries_of_its_own_gets_the_formula(in_blocks, takes_closed_form):
    input = torch.randn(6, CLASSES, requires_grad=True)
    assert not takes_closed_form(OfTheBatch()(input, soft((6, CLASSES)).float()))
    assert takes_closed_form(Named()(input, soft((6, CLASSES)).float()))


def test_a_loss_with_entries_of_its_own_gets_the_formula(in_blocks, takes_closed_form):
    loss, input = Named(), torch.randn(6, CLASSES, requires_grad=True)
    loss.entries = OfTheBatch().entries
    assert not takes_closed_form(loss(input, soft((6, CLASSES)).float()))


class Learned(poly.Poly1CrossEntropyLoss):
    def __init__(self):
        super().__init__(weight=torch.ones(CLASSES))
        del self.weight
        self.weight = torch.nn.Parameter(torch.ones(CLASSES))


def test_learned_weights_of_a_module_have_their_gradient(in_blocks):
    loss = Learned()
    loss(torch.randn(6, CLASSES, requires_grad=True), soft((6, CLASSES)).float()).backward()
    assert loss.weight.grad.abs().sum() > 0


# torch compiles its decompositions for forward mode with its own deprecated function.
@pytest.mark.filterwarnings("ignore:.torch.jit.script.* is deprecated:FutureWarning")
def test_factors_have_their_tangent(in_blocks):
    input, target = torch.randn(6, CLASSES), soft((6, CLASSES)).float()
    with forward_ad.dual_level():
        weight = forward_ad.make_dual(torch.ones(CLASSES), torch.ones(CLASSES))
        for loss in (
            poly.poly1_binary_cross_entropy_with_logits(input, target, pos_weight=weight),
            poly.poly1_cross_entropy(input, target, weight=weight),
        ):
            assert forward_ad.unpack_dual(loss).tangent > 0


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_weights_of_zero_on_every_target_are_as_in_torch(in_blocks, reduction):
    input = torch.randn(6, CLASSES, dtype=torch.float64, requires_grad=True)
    target, weight = torch.zeros(6).long(), torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    options = {"weight": weight, "label_smoothing": 0.1, "reduction": reduction}
    loss, expected = poly.poly1_cross_entropy(input, target, 0.0, **options), F.cross_entropy(input, target, **options)
    gradients = [torch.autograd.grad(value.sum(), input)[0] for value in (loss, expected)]
    if reduction == "mean":  # a mean of no weight, of a sum that is not zero
        assert not any(each.isfinite().all() for each in (loss, expected, *gradients))
    else:
        torch.testing.assert_close((loss, gradients[0]), (expected, gradients[1]))


def test_a_factor_of_each_sample_is_cut_with_the_logits(in_blocks, takes_closed_form):
    input, target = torch.randn(6, CLASSES, requires_grad=True), soft((6, CLASSES)).float()
    weight = torch.rand(6, 1)
    loss = poly.poly1_binary_cross_entropy_with_logits(input, target, 0.0, weight=weight)
    assert takes_closed_form(loss)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(input, target, weight=weight))


def test_logits_are_held_until_backward_and_no_longer(in_blocks):
    for function in (poly.poly1_binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits):
        leaf, target = torch.randn(6, CLASSES, requires_grad=True), soft((6, CLASSES)).float()
        logits = leaf * 1
        held = weakref.ref(logits)
        with poly.override_losses(2.0, on_nothing="warn"):
            F.binary_cross_entropy_with_logits(torch.zeros(1), torch.zeros(1))  # so that the block is not empty
            loss = function(logits, target)
        loss.backward()
        del logits
        assert held() is None


def test_a_target_made_in_inference_mode(in_blocks):
    with torch.inference_mode():
        target = torch.rand(6, CLASSES)
    input = torch.randn(6, CLASSES, requires_grad=True)
    poly.poly1_binary_cross_entropy_with_logits(input, target).backward()
    assert input.grad.isfinite().all()


def test_what_else_has_a_gradient_gets_the_formula(in_blocks):
    input, target = torch.randn(6, CLASSES, requires_grad=True), soft((6, CLASSES)).float()
    weight = torch.ones(CLASSES, requires_grad=True)
    for arguments, options, leaf in (
        ((input, target.requires_grad_()), {}, target),
        ((input, target.detach()), {"weight": weight}, weight),
    ):
        (gradient,) = torch.autograd.grad(poly.poly1_cross_entropy(*arguments, **options), leaf)
        assert gradient.abs().sum() > 0
    loss = poly.poly1_binary_cross_entropy_with_logits(input, target.detach(), pos_weight=weight)
    assert torch.autograd.grad(loss, weight)[0].abs().sum() > 0


@pytest.mark.parametrize("target", [torch.full((6,), -100), torch.full((6, CLASSES), -100.0)])
def test_a_mean_of_nothing_moves_nothing(in_blocks, takes_closed_form, target):
    input = torch.randn(6, CLASSES, requires_grad=True)
    if target.dim() == 1:
        loss = poly.poly1_cross_entropy(input, target, label_smoothing=0.1)
    else:
        loss = poly.poly1_binary_cross_entropy_with_logits(input, target)
    loss.backward()
    assert takes_closed_form(loss)
    assert loss.isnan()
    assert not input.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_at_the_end_alone(in_blocks, dtype):
    input = torch.tensor([[9.0, -9.0, 0.0, 0.0]]).repeat(6, 1).to(dtype).requires_grad_()
    target = F.one_hot(torch.zeros(6, dtype=torch.int64), CLASSES).to(dtype)
    exact = input.detach().double().requires_grad_()
    gradients = []
    for logits in (input, exact):
        loss = poly.poly1_cross_entropy(logits, target.to(logits.dtype), reduction="sum")
        # As a GradScaler does: by itself, the gradient of the second logit is nothing that a float16 could hold.
        gradients.append(torch.autograd.grad(loss, logits, torch.tensor(2.0**12, dtype=loss.dtype))[0])
    assert gradients[0].dtype == dtype
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=2**-7, atol=1e-7)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_off_none_is_computed(in_blocks, mode, monkeypatch):
    input = torch.randn(6, CLASSES, requires_grad=True)
    target = soft((6, CLASSES)).float()
    expected = in_blocks(lambda: poly.poly1_cross_entropy(input, target)).detach()
    monkeypatch.delattr(torch.autograd, "grad")
    with mode():
        torch.testing.assert_close(poly.poly1_cross_entropy(input, target), expected)


@pytest.mark.closed_form  # the formula keeps no logits
def test_logits_overwritten_before_backward_raise(in_blocks):
    input = torch.randn(6, CLASSES, requires_grad=True)
    logits = input * 1
    loss = poly.poly1_cross_entropy(logits, soft((6, CLASSES)).float())
    logits.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_does_not_fit_is_refused_with_its_whole_shape(in_blocks):
    input = torch.randn(6, CLASSES, requires_grad=True)
    with pytest.raises(ValueError, match=r"`input` of shape \(6, 4\), got shape \(3,\)"):
        poly.poly1_binary_cross_entropy_with_logits(input, input.detach(), weight=torch.ones(3))
    for length in (5, 7):
        with pytest.raises(ValueError, match=rf"shape \(6,\) .* of shape \(6, 4\), got shape \({length},\)"):
            poly.poly1_cross_entropy(input, torch.zeros(length).long(), label_smoothing=0.1)
        with pytest.raises(ValueError, match=rf"shape of `input`, \(6, 4\), .* got shape \({length}, 4\)"):
            poly.poly1_sigmoid_focal_loss(input, torch.zeros(length, 4))


@given(
    shape=st.lists(st.integers(0, 6), min_size=2, max_size=4),
    limit=st.integers(1, 50),
    joint_dim=st.none() | st.integers(0, 3),
)
def test_blocks_are_within_the_limit_and_hold_every_element_once(shape, limit, joint_dim):
    assume(0 not in shape)
    input = torch.zeros(shape)
    joint_dim = None if joint_dim is None or joint_dim >= len(shape) else joint_dim
    cuts = blocks.cut(input.shape, joint_dim, limit)
    whole = 1 if joint_dim is None else shape[joint_dim]
    for block in cuts:
        input[block] += 1
        assert input[block].numel() <= max(limit, whole)
    assert (input == 1).all()


@pytest.mark.parametrize("target_format", [None, "class_index"])
def test_one_sample_of_very_many_classes(target_format):
    input, target = torch.randn(200_000), torch.tensor(3)
    if target_format is None:
        actual, expected = poly.poly1_cross_entropy(input, target, 0.0), F.cross_entropy(input, target)
    else:
        actual = poly.poly1_sigmoid_focal_loss(input, target, 0.0, alpha=-1, gamma=0, target_format=target_format)
        expected = F.binary_cross_entropy_with_logits(input, F.one_hot(target, 200_000).float())
    torch.testing.assert_close(actual, expected)


def test_a_weight_without_dimensions_may_be_on_another_device():
    input = torch.empty(12_000_000, device="meta", requires_grad=True)
    loss = poly.functional.poly1_binary_cross_entropy_with_logits(input, input.detach(), pos_weight=torch.tensor(2.0))
    assert loss.is_meta
