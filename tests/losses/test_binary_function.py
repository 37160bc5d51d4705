"""Binary cross-entropy: torch's at epsilon 0, and the formula for every other."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning import poly1_binary_cross_entropy_with_logits as poly1_bce

SHAPES = [(), (5,), (4, 3), (2, 3, 4), (0, 3)]
REDUCTIONS = ["none", "mean", "sum"]


def batch(shape, hard=False, dtype=torch.float64):
    target = torch.rand(shape, dtype=dtype)
    return 3 * torch.randn(shape, dtype=dtype), target.round() if hard else target


def weights(shape):
    """None, one value, one an element of the last axis, one an element."""
    last = shape[-1:]
    return [None, torch.tensor(2.5, dtype=torch.float64), torch.rand(last, dtype=torch.float64), torch.rand(shape)]


def value_and_gradients(function, input, target, **options):
    input, target = input.detach().clone().requires_grad_(), target.detach().clone().requires_grad_()
    loss = function(input, target, **options)
    weighing = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).view_as(loss)
    return loss.detach(), *torch.autograd.grad((loss * weighing).sum(), (input, target))


def formula(input, target, epsilon, weight=1.0, pos_weight=1.0, num_terms=None):
    """In float64, with plain logarithms and powers."""

    def one(pt):
        miss = 1 - pt
        series = -pt.log() if num_terms is None else sum(miss**j / j for j in range(1, num_terms + 1))
        return series + sum(e * miss**j for j, e in enumerate(epsilon, start=1))

    p = input.sigmoid()
    return weight * (pos_weight * target * one(p) + (1 - target) * one(1 - p))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("hard", [False, True])
def test_epsilon_zero_is_torch(reduction, hard):
    for shape in SHAPES:
        for weight, pos_weight in itertools.product(weights(shape), weights(shape)):
            options = {"weight": weight, "pos_weight": pos_weight, "reduction": reduction}
            input, target = batch(shape, hard)
            actual = value_and_gradients(poly1_bce, input, target, epsilon=0.0, **options)
            expected = value_and_gradients(F.binary_cross_entropy_with_logits, input, target, **options)
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14, equal_nan=True)


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("autocast", [False, True])
def test_the_dtype_is_that_of_torch(autocast):
    for input_dtype, target_dtype in itertools.product(DTYPES, DTYPES):
        input, target = torch.randn(8).to(input_dtype), torch.rand(8).to(target_dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            expected = F.binary_cross_entropy_with_logits(input, target)
            actual = poly1_bce(input, target, 0.0)
        coarse = {torch.float16, torch.bfloat16} & {input_dtype, target_dtype}
        torch.testing.assert_close(actual, expected, **({"rtol": 0.02, "atol": 0.01} if coarse else {}))


@pytest.mark.parametrize("num_terms", [None, 3])
@given(
    logits=st.lists(st.floats(-12, 12), min_size=3, max_size=3),
    target=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    weight=st.lists(st.floats(0, 5), min_size=3, max_size=3),
    pos_weight=st.lists(st.floats(0, 5), min_size=3, max_size=3),
    epsilon=st.lists(st.floats(-3, 8), min_size=1, max_size=3),
)
def test_weights_are_on_every_term(num_terms, logits, target, weight, pos_weight, epsilon):
    input, target, weight, pos_weight = (
        torch.tensor(values, dtype=torch.float64) for values in (logits, target, weight, pos_weight)
    )
    actual = poly1_bce(
        input, target, epsilon, weight=weight, pos_weight=pos_weight, reduction="none", num_terms=num_terms
    )
    expected = formula(input, target, epsilon, weight, pos_weight, num_terms)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_minus_one_removes_the_first_term_whatever_the_weights():
    (input, target), weight, pos_weight = batch((4, 3)), torch.rand(3), 4 * torch.rand(3)
    options = {"weight": weight, "pos_weight": pos_weight, "reduction": "none"}
    dropped = poly1_bce(input, target, 0.0, num_terms=1, **options)
    rest = poly1_bce(input, target, -1.0, **options)
    torch.testing.assert_close(rest + dropped, poly1_bce(input, target, 0.0, **options))


class TestIgnoredElements:
    @pytest.mark.parametrize("ignore_index", [-100, 255, 0, 1])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_count_for_nothing(self, ignore_index, reduction):
        input, target = batch((6, 4), hard=True)
        target[::2, 1] = ignore_index
        kept = target != ignore_index
        weight = torch.rand(6, 4, dtype=torch.float64)
        actual = value_and_gradients(
            poly1_bce, input, target, epsilon=2.0, weight=weight, ignore_index=ignore_index, reduction=reduction
        )
        expected = value_and_gradients(
            lambda x, q, **options: poly1_bce(x[kept], q[kept], 2.0, weight=weight[kept], **options),
            input,
            target,
            reduction=reduction,
            ignore_index=-100,
        )
        torch.testing.assert_close(actual, expected)

    @pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf])
    def test_may_have_any_logit(self, garbage):
        input, target = batch((3, 4), hard=True)
        target[1, 2] = -100
        expected = value_and_gradients(poly1_bce, input, target, epsilon=2.0)
        input[1, 2] = garbage
        torch.testing.assert_close(value_and_gradients(poly1_bce, input, target, epsilon=2.0), expected)

    def test_are_zero_without_reduction(self):
        input, target = batch((3, 2))
        target[1] = -100
        assert poly1_bce(input, target, reduction="none")[1].tolist() == [0, 0]

    def test_that_are_all_give_nan_as_mean_and_zero_as_sum(self):
        input, target = torch.zeros(3, requires_grad=True), torch.full((3,), -100.0)
        assert poly1_bce(input, target).isnan()
        assert poly1_bce(input, target, reduction="sum") == 0
        (gradient,) = torch.autograd.grad(poly1_bce(input, target), input)
        assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_integer_and_boolean_targets_are_zeros_and_ones(dtype):
    input, target = batch((5, 2), hard=True)
    torch.testing.assert_close(poly1_bce(input, target.to(dtype)), poly1_bce(input, target))


def test_a_mask_value_of_uint8_targets_does_not_wrap_around():
    input, target = torch.zeros(3), torch.tensor([0, 1, 156], dtype=torch.uint8)  # 156 is -100 modulo 256
    assert poly1_bce(input, target, reduction="none")[2] != 0
    assert poly1_bce(input, target, reduction="none", ignore_index=156)[2] == 0


def test_a_masked_negative_costs_nothing():
    input = torch.tensor([-torch.inf, 1.0], requires_grad=True)
    loss = poly1_bce(input, torch.tensor([0.0, 1.0]), reduction="sum")
    loss.backward()
    torch.testing.assert_close(loss, poly1_bce(torch.tensor([1.0]), torch.tensor([1.0])))
    assert input.grad[0] == 0


@pytest.mark.parametrize(
    ("input", "target", "options", "error", "message"),
    [
        (torch.zeros(3), torch.zeros(4), {}, ValueError, r"`target` .* \(3,\), .* got shape \(4,\)"),
        (torch.zeros(3), torch.zeros(3, 1), {}, ValueError, r"got shape \(3, 1\)"),
        (torch.zeros(3, dtype=torch.int64), torch.zeros(3), {}, TypeError, "`input` .* got torch.int64"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.complex64), {}, TypeError, "`target` .* torch.complex64"),
        (torch.zeros(3), torch.zeros(3), {"weight": torch.ones(2)}, ValueError, r"`weight` .* got shape \(2,\)"),
        (torch.zeros(3), torch.zeros(3), {"weight": torch.ones(4, 3)}, ValueError, r"`weight` .* got shape \(4, 3\)"),
        (torch.zeros(3), torch.zeros(3), {"pos_weight": torch.ones(2)}, ValueError, r"`pos_weight` .* shape \(2,\)"),
        (torch.zeros(3), torch.zeros(3), {"reduction": "avg"}, ValueError, "`reduction` .* got 'avg'"),
        (torch.zeros(3), torch.zeros(3), {"epsilon": torch.nan}, ValueError, "`epsilon` .* got nan"),
        (torch.zeros(3), torch.zeros(3), {"ignore_index": 0.5}, TypeError, "`ignore_index` .* got 0.5"),
        (torch.zeros(3), torch.zeros(3), {"ignore_index": True}, TypeError, "`ignore_index` .* got True"),
    ],
)
def test_bad_input_is_refused_by_name(input, target, options, error, message):
    with pytest.raises(error, match=message):
        poly1_bce(input, target, **options)
