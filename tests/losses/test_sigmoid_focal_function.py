"""Sigmoid focal loss: torchvision's at epsilon 0, and the formula for every other."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from polyloss_lightning import poly1_binary_cross_entropy_with_logits, poly1_sigmoid_focal_loss

SHAPES = [(), (5,), (4, 3), (2, 3, 4), (0, 3)]
ALPHAS = [-1, 0, 0.25, 1]
GAMMAS = [0, 0.1, 0.5, 1, 2, 2.5, 5]
unit = st.floats(0, 1)


def batch(shape, hard=False, dtype=torch.float64):
    target = torch.rand(shape, dtype=dtype)
    return 3 * torch.randn(shape, dtype=dtype), target.round() if hard else target


def value_and_gradients(function, input, target, **options):
    input, target = input.detach().clone().requires_grad_(), target.detach().clone().requires_grad_()
    loss = function(input, target, **options)
    weighing = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).view_as(loss)
    return loss.detach(), *torch.autograd.grad((loss * weighing).sum(), (input, target))


def formula(input, q, epsilon, alpha, gamma, num_terms=None):
    """In float64, with plain logarithms and powers."""

    def one(pt):
        miss = 1 - pt
        series = -pt.log() if num_terms is None else sum(miss**j / j for j in range(1, num_terms + 1))
        return series + sum(e * miss**j for j, e in enumerate(epsilon, start=1))

    p = input.sigmoid()
    alpha_t = 1.0 if alpha == -1 else alpha * q + (1 - alpha) * (1 - q)
    return alpha_t * (1 - p * q - (1 - p) * (1 - q)) ** gamma * (q * one(p) + (1 - q) * one(1 - p))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("hard", [False, True])
def test_epsilon_zero_is_torchvision(reduction, hard):
    for shape, alpha, gamma in itertools.product(SHAPES, ALPHAS, GAMMAS):
        input, target = batch(shape, hard)
        options = {"alpha": alpha, "gamma": gamma, "reduction": reduction}
        actual = value_and_gradients(poly1_sigmoid_focal_loss, input, target, epsilon=0.0, **options)
        expected = value_and_gradients(sigmoid_focal_loss, input, target, **options)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12, equal_nan=True)


def test_defaults_are_those_of_torchvision_but_for_the_reduction():
    input, target = batch((4, 3))
    expected = sigmoid_focal_loss(input, target, reduction="mean")
    torch.testing.assert_close(poly1_sigmoid_focal_loss(input, target, 0.0), expected)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_dtype_is_that_of_torchvision(autocast):
    dtypes = [torch.bfloat16, torch.float32, torch.float64]
    for input_dtype, target_dtype in itertools.product(dtypes, dtypes):
        input, target = torch.randn(8).to(input_dtype), torch.rand(8).to(target_dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            expected = sigmoid_focal_loss(input, target, reduction="mean")
            actual = poly1_sigmoid_focal_loss(input, target, 0.0)
        coarse = torch.bfloat16 in (input_dtype, target_dtype)
        torch.testing.assert_close(actual, expected, **({"rtol": 0.05, "atol": 0.01} if coarse else {}))


@pytest.mark.parametrize("num_terms", [None, 3])
@given(
    logits=st.lists(st.floats(-12, 12), min_size=3, max_size=3),
    target=st.lists(unit, min_size=3, max_size=3),
    epsilon=st.lists(st.floats(-3, 8), min_size=1, max_size=3),
    alpha=st.one_of(st.just(-1.0), unit),
    gamma=st.one_of(st.sampled_from(GAMMAS), st.floats(0, 5)),
)
def test_value_is_the_formula(num_terms, logits, target, epsilon, alpha, gamma):
    input, target = torch.tensor(logits, dtype=torch.float64), torch.tensor(target, dtype=torch.float64)
    actual = poly1_sigmoid_focal_loss(
        input, target, epsilon, alpha=alpha, gamma=gamma, reduction="none", num_terms=num_terms
    )
    # The formula itself has an error of 1e-16 to the power of gamma where 1 - Pt should be 0.
    torch.testing.assert_close(actual, formula(input, target, epsilon, alpha, gamma, num_terms), rtol=1e-8, atol=1e-8)


def test_one_epsilon_adds_the_power_of_the_miss_for_soft_targets_too():
    input, q = batch((50,))
    p = input.sigmoid()
    miss = p * (1 - q) + (1 - p) * q
    correction = poly1_sigmoid_focal_loss(input, q, 3.0, reduction="none")
    correction = correction - poly1_sigmoid_focal_loss(input, q, 0.0, reduction="none")
    torch.testing.assert_close(correction, (0.25 * q + 0.75 * (1 - q)) * 3.0 * miss**3)


def test_without_focusing_it_is_binary_cross_entropy():
    input, target = batch((4, 3))
    for epsilon in (1.0, [2.0, -0.5]):
        actual = poly1_sigmoid_focal_loss(input, target, epsilon, alpha=-1, gamma=0)
        torch.testing.assert_close(actual, poly1_binary_cross_entropy_with_logits(input, target, epsilon))


@pytest.mark.parametrize("alpha", [-1, 0.25])
def test_minus_one_removes_the_first_term_whatever_alpha(alpha):
    input, target = batch((4, 3))
    options = {"alpha": alpha, "reduction": "none", "weight": torch.rand(3)}
    dropped = poly1_sigmoid_focal_loss(input, target, 0.0, num_terms=1, **options)
    rest = poly1_sigmoid_focal_loss(input, target, -1.0, **options)
    torch.testing.assert_close(rest + dropped, poly1_sigmoid_focal_loss(input, target, 0.0, **options))


class TestClassIndices:
    @pytest.mark.parametrize("shape", [(4,), (6, 4), (3, 4, 2), (2, 4, 3, 2)])
    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
    def test_are_one_hot(self, shape, dtype):
        class_dim = min(1, len(shape) - 1)
        input, index = batch(shape)[0], torch.randint(4, shape[:class_dim] + shape[class_dim + 1 :])
        one_hot = torch.nn.functional.one_hot(index, 4).movedim(-1, class_dim)
        for reduction in ("none", "mean", "sum"):
            actual = poly1_sigmoid_focal_loss(input, index.to(dtype), reduction=reduction, target_format="class_index")
            torch.testing.assert_close(actual, poly1_sigmoid_focal_loss(input, one_hot, reduction=reduction))

    @pytest.mark.parametrize("ignore_index", [-100, 0, 1, 255])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_that_are_ignored_leave_the_whole_sample_out(self, ignore_index, reduction):
        input, index = batch((6, 4))[0], torch.tensor([0, 1, 2, 3, ignore_index, 2])
        kept = index != ignore_index
        options = {"reduction": reduction, "target_format": "class_index"}
        actual = poly1_sigmoid_focal_loss(input, index, 2.0, ignore_index=ignore_index, **options)
        torch.testing.assert_close(actual, poly1_sigmoid_focal_loss(input[kept], index[kept], 2.0, **options))


@pytest.mark.parametrize("ignore_index", [-100, 255, 0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_ignored_elements_count_for_nothing(ignore_index, dtype):
    input, target = batch((3, 4, 2), hard=True)
    target[:, 1] = ignore_index
    kept = target != ignore_index
    weight = torch.rand(3, 4, 2, dtype=torch.float64)
    for reduction in ("mean", "sum"):
        actual = poly1_sigmoid_focal_loss(
            input, target.to(dtype), weight=weight, ignore_index=ignore_index, reduction=reduction
        )
        expected = poly1_sigmoid_focal_loss(input[kept], target[kept], weight=weight[kept], reduction=reduction)
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_ignored_elements_may_have_any_logit(garbage, gamma):
    def second_derivative(x):
        loss = poly1_sigmoid_focal_loss(x, target, 2.0, gamma=gamma)
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss, gradient, *torch.autograd.grad(gradient.square().sum(), x)

    input, target = batch((3, 4), hard=True)
    target[1, 2] = -100
    expected = second_derivative(input.requires_grad_())
    broken = input.detach().clone()
    broken[1, 2] = garbage
    torch.testing.assert_close(second_derivative(broken.requires_grad_()), expected)
    leaf = input.detach().clone().index_fill(0, torch.tensor([1]), garbage).requires_grad_()
    index = {"target_format": "class_index", "ignore_index": 0}
    poly1_sigmoid_focal_loss(leaf, torch.tensor([1, 0, 2]), gamma=gamma, **index).backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad[1].count_nonzero() == 0


class TestAlphaOfEachClass:
    alpha = torch.tensor([0.0, 0.1, 0.25, 1.0], dtype=torch.float64)

    @pytest.mark.parametrize("shape", [(4,), (6, 4), (3, 4, 2), (2, 4, 3, 2), (0, 4)])
    @pytest.mark.parametrize("hard", [False, True])
    def test_is_torchvision_class_by_class(self, shape, hard):
        class_dim = min(1, len(shape) - 1)
        for gamma in GAMMAS:
            input, target = batch(shape, hard)
            options = {"gamma": gamma, "reduction": "none"}
            actual = value_and_gradients(
                lambda *xq, **options: poly1_sigmoid_focal_loss(*xq, 0.0, alpha=self.alpha, **options).movedim(
                    class_dim, 0
                ),
                input,
                target,
                **options,
            )
            columns = [
                value_and_gradients(sigmoid_focal_loss, x, q, alpha=alpha.item(), **options)[0]
                for alpha, x, q in zip(self.alpha, input.unbind(class_dim), target.unbind(class_dim), strict=True)
            ]
            torch.testing.assert_close(actual[0], torch.stack(columns), rtol=1e-10, atol=1e-12)

    def test_has_the_gradients_of_torchvision(self):
        input, target = batch((6, 4))
        options = {"gamma": 1.5, "reduction": "sum"}
        actual = value_and_gradients(poly1_sigmoid_focal_loss, input, target, epsilon=0.0, alpha=self.alpha, **options)
        for c in range(4):
            _, *expected = value_and_gradients(
                sigmoid_focal_loss, input[:, c], target[:, c], alpha=self.alpha[c].item(), **options
            )
            torch.testing.assert_close([gradient[:, c] for gradient in actual[1:]], expected)

    def test_that_is_equal_for_all_is_one_number(self):
        input, index = batch((6, 4))[0], torch.randint(4, (6,))
        for epsilon in (1.0, [2.0, -0.5]):
            actual, expected = (
                poly1_sigmoid_focal_loss(input, index, epsilon, alpha=alpha, target_format="class_index")
                for alpha in (torch.full((4,), 0.3), 0.3)
            )
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (torch.zeros(3), {}, ValueError, r"`target` .* \(3, 2\), .* got shape \(3,\)"),
        (torch.zeros(3, 2), {"target_format": "class_index"}, ValueError, r"\(3,\) for .* got shape \(3, 2\)"),
        (torch.zeros(3), {"target_format": "class_index"}, TypeError, "class indices .* got torch.float32"),
        (torch.zeros(3, 2), {"target_format": "one_hot"}, ValueError, "`target_format` .* got 'one_hot'"),
        (torch.zeros(3, 2), {"alpha": 1.5}, ValueError, r"`alpha` must be in \[0, 1\], .* got 1.5"),
        (torch.zeros(3, 2), {"alpha": -0.5}, ValueError, "`alpha` .* got -0.5"),
        (torch.zeros(3, 2), {"alpha": torch.nan}, ValueError, "`alpha` .* got nan"),
        (torch.zeros(3, 2), {"alpha": [0.5, 0.5]}, TypeError, r"`alpha` .* got \[0.5, 0.5\]"),
        (torch.zeros(3, 2), {"gamma": -1}, ValueError, "`gamma` .* got -1"),
        (torch.zeros(3, 2), {"gamma": torch.inf}, ValueError, "`gamma` .* got inf"),
        (torch.zeros(3, 2), {"gamma": "2"}, TypeError, "`gamma` .* got '2'"),
        (torch.zeros(3, 2), {"weight": torch.ones(3)}, ValueError, r"`weight` .* got shape \(3,\)"),
        (torch.zeros(3, 2), {"alpha": torch.ones(3)}, ValueError, r"`alpha` .* along axis 1 .* got shape \(3,\)"),
        (torch.zeros(3, 2), {"alpha": torch.ones(3, 2)}, ValueError, r"`alpha` .* got shape \(3, 2\)"),
        (torch.zeros(3, 2), {"reduction": "avg"}, ValueError, "`reduction` .* got 'avg'"),
        (torch.zeros(3, 2), {"num_terms": 0}, ValueError, "`num_terms` .* got 0"),
    ],
)
def test_bad_input_is_refused_by_name(target, options, error, message):
    with pytest.raises(error, match=message):
        poly1_sigmoid_focal_loss(torch.zeros(3, 2), target, **options)
