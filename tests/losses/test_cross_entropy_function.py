"""Epsilon 0 is torch's own loss, for everything that torch's loss takes."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from polyloss_lightning import poly1_cross_entropy

CLASSES = 4
SHAPES = [(CLASSES,), (6, CLASSES), (3, CLASSES, 5), (2, CLASSES, 3, 2), (0, CLASSES), (0, CLASSES, 2)]
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)


def index_target(shape):
    class_dim = min(1, len(shape) - 1)
    return torch.randint(CLASSES, shape[:class_dim] + shape[class_dim + 1 :])


def soft_target(shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype).softmax(min(1, len(shape) - 1))


def value_and_gradients(function, input, target, **options):
    """The loss, and the gradient of a sum that tells its entries apart, for the logits and a soft target."""
    input = input.detach().clone().requires_grad_()
    target = target.detach().clone()
    leaves = [input]
    if target.is_floating_point():
        leaves.append(target.requires_grad_())
    loss = function(input, target, **options)
    weighing = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).view_as(loss)
    return loss.detach(), *torch.autograd.grad((loss * weighing).sum(), leaves)


def assert_same_as_torch(input, target, **options):
    expected = value_and_gradients(F.cross_entropy, input, target, **options)
    actual = value_and_gradients(poly1_cross_entropy, input, target, epsilon=0.0, **options)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, WEIGHT])
class TestEpsilonZeroIsTorchForEveryShape:
    @pytest.mark.parametrize("ignore_index", [-100, -1, 1, 255])
    def test_for_class_indices(self, reduction, label_smoothing, weight, ignore_index):
        for shape, share_ignored in itertools.product(SHAPES, (0.0, 0.4, 1.0)):
            target = index_target(shape)
            assert_same_as_torch(
                torch.randn(shape, dtype=torch.float64),
                target.where(torch.rand(target.shape) >= share_ignored, ignore_index),
                weight=weight,
                ignore_index=ignore_index,
                reduction=reduction,
                label_smoothing=label_smoothing,
            )

    @pytest.mark.parametrize("ignore_index", [-100, -1])
    def test_for_probabilities(self, reduction, label_smoothing, weight, ignore_index):
        for shape, normalized in itertools.product(SHAPES, (True, False)):
            assert_same_as_torch(
                torch.randn(shape, dtype=torch.float64),
                soft_target(shape) if normalized else 3 * torch.rand(shape, dtype=torch.float64),
                weight=weight,
                ignore_index=ignore_index,
                reduction=reduction,
                label_smoothing=label_smoothing,
            )


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e2, 1e4])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_small_and_huge_logits_as_in_torch(scale, label_smoothing):
    input = scale * torch.randn(20, CLASSES, dtype=torch.float64)
    assert_same_as_torch(input, index_target((20, CLASSES)), label_smoothing=label_smoothing)
    assert_same_as_torch(input, soft_target((20, CLASSES)), label_smoothing=label_smoothing)


def test_bytes_as_class_indices():
    input = torch.randn(5, CLASSES, dtype=torch.float64)
    assert_same_as_torch(input, torch.tensor([0, 1, 2, 3, 255], dtype=torch.uint8), ignore_index=255)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("target", [index_target, soft_target])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_of_the_loss_is_that_of_torch(dtype, target, reduction, autocast):
    shape = (5, CLASSES)
    input, target = torch.randn(shape).to(dtype), target(shape)
    if target.is_floating_point():
        target = target.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = F.cross_entropy(input, target, reduction=reduction)
        actual = poly1_cross_entropy(input, target, 0.0, reduction=reduction)
    assert actual.dtype == expected.dtype
    rtol = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("weight_dtype", [None, torch.float32, torch.float64])
@pytest.mark.parametrize("target_dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("input_dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_mixed_dtypes_of_a_soft_target_promote_as_in_torch(input_dtype, target_dtype, weight_dtype, autocast):
    input = torch.randn(5, CLASSES).to(input_dtype)
    target = soft_target((5, CLASSES)).to(target_dtype)
    weight = None if weight_dtype is None else WEIGHT.to(weight_dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = F.cross_entropy(input, target, weight=weight)
        actual = poly1_cross_entropy(input, target, 0.0, weight=weight)
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("epsilon", [0.0, 1.0, (-1.0, 0.5)])
def test_logits_of_ignored_rows_reach_neither_the_loss_nor_other_rows(weight, label_smoothing, garbage, epsilon):
    input = torch.randn(4, CLASSES, dtype=torch.float64)
    target = torch.tensor([0, -100, 3, 1])
    kept = target != -100
    options = {"weight": weight, "label_smoothing": label_smoothing}
    expected, expected_gradient = value_and_gradients(
        poly1_cross_entropy, input[kept], target[kept], epsilon=epsilon, **options
    )
    broken = input.clone()
    broken[1] = garbage
    loss, gradient = value_and_gradients(poly1_cross_entropy, broken, target, epsilon=epsilon, **options)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient[kept], expected_gradient)
    if epsilon == 0.0:
        assert_same_as_torch(broken, target, **options)


class TestClassesMaskedByMinusInfinity:
    input = torch.tensor([[1.0, -torch.inf, 0.5, -0.3], [-torch.inf, 2.0, 1.0, -torch.inf]], dtype=torch.float64)
    target = torch.tensor([2, 1])

    @pytest.mark.parametrize("weight", [None, WEIGHT])
    @pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
    def test_as_in_torch_for_class_indices(self, weight, label_smoothing):
        assert_same_as_torch(self.input, self.target, weight=weight, label_smoothing=label_smoothing)

    @pytest.mark.parametrize("weight", [None, WEIGHT + 1])
    @pytest.mark.parametrize("epsilon", [0.0, 2.0, (-1.0, 0.5)])
    def test_one_hot_target_equals_its_class_index_where_torch_has_nan(self, weight, epsilon):
        one_hot = F.one_hot(self.target, CLASSES).double()
        assert F.cross_entropy(self.input, one_hot).isnan()
        options = {"epsilon": epsilon, "weight": weight, "reduction": "sum"}
        by_index, index_gradient = value_and_gradients(poly1_cross_entropy, self.input, self.target, **options)
        by_share, share_gradient, _ = value_and_gradients(poly1_cross_entropy, self.input, one_hot, **options)
        torch.testing.assert_close(by_share, by_index)
        torch.testing.assert_close(share_gradient, index_gradient)
        assert index_gradient.isfinite().all()


@pytest.mark.parametrize("bad", [CLASSES, -1])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_target_out_of_range_raises_as_in_torch(bad, label_smoothing):
    target = torch.tensor([0, bad])
    with pytest.raises(IndexError):
        F.cross_entropy(torch.randn(2, CLASSES), target, label_smoothing=label_smoothing)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        poly1_cross_entropy(torch.randn(2, CLASSES), target, label_smoothing=label_smoothing)


@pytest.mark.parametrize("weight", [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_smoothing_with_weights_of_zero_on_every_target_is_torch(weight, reduction, requires_grad):
    """The mean is NaN, even if the smoothed part is not 0."""
    input, target = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    options, weight = {"reduction": reduction, "label_smoothing": 0.1}, torch.tensor(weight)
    torchs = F.cross_entropy(input, target, weight=weight, **options)
    weight.requires_grad_(requires_grad)  # with a gradient it is the formula
    ours = poly1_cross_entropy(input, target, 0.0, weight=weight, **options)
    torch.testing.assert_close(ours.detach(), torchs, equal_nan=True)
    assert ours.isnan().all() == (reduction == "mean")
