"""Softmax focal loss: cross-entropy at gamma 0, and the formula for every other."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning import poly1_cross_entropy, poly1_focal_loss

CLASSES = 4
SHAPES = [(CLASSES,), (6, CLASSES), (3, CLASSES, 5), (2, CLASSES, 3, 2), (0, CLASSES)]
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
GAMMAS = [0.1, 0.5, 1.0, 2.0, 2.5, 5.0]


def batch(shape, soft, ignore_index=-100):
    class_dim = min(1, len(shape) - 1)
    input = 2 * torch.randn(shape, dtype=torch.float64)
    if soft:
        return input, torch.randn(shape, dtype=torch.float64).softmax(class_dim)
    target = torch.randint(CLASSES, shape[:class_dim] + shape[class_dim + 1 :])
    target = target.where(torch.rand(target.shape) < 0.7, ignore_index)
    target.view(-1)[:1] = 0  # a mean of nothing has no gradient by the formula
    return input, target


def value_and_gradient(function, input, target, *args, **options):
    input = input.detach().clone().requires_grad_()
    loss = function(input, target, *args, **options)
    weighing = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).view_as(loss)
    return loss.detach(), *torch.autograd.grad((loss * weighing).sum(), input)


def formula(input, target, epsilon, gamma, weight, ignore_index, label_smoothing, reduction, num_terms=None):
    """In float64, with plain logarithms and powers."""
    class_dim = min(1, input.dim() - 1)
    miss = 1 - input.softmax(class_dim)
    series = -input.log_softmax(class_dim)
    if num_terms is not None:
        series = sum(miss**j / j for j in range(1, num_terms + 1))
    each = miss**gamma * (series + sum(e * miss**j for j, e in enumerate(epsilon, start=1)))
    weight = torch.ones(CLASSES, dtype=torch.float64) if weight is None else weight
    along_classes = weight.view([-1 if dim == class_dim else 1 for dim in range(input.dim())])
    if target.is_floating_point():
        q, total = target, input.numel() / CLASSES
    else:
        counts = target != ignore_index
        q = F.one_hot(target.where(counts, 0), CLASSES).double().movedim(-1, class_dim)
        total = (weight[target.where(counts, 0)] * counts).sum()
    q = (1 - label_smoothing) * q + label_smoothing / CLASSES
    if not target.is_floating_point():
        q = q * counts.unsqueeze(class_dim)
    loss = (q * along_classes * each).sum(class_dim)
    return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / total}[reduction]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("soft", [False, True])
class TestEveryShapeAndOption:
    def test_gamma_zero_is_cross_entropy_in_every_bit(self, reduction, soft):
        for shape, weight, label_smoothing, ignore_index in itertools.product(
            SHAPES, (None, WEIGHT), (0.0, 0.1), (-100, 1)
        ):
            if soft and ignore_index >= 0:
                continue
            options = {"weight": weight, "label_smoothing": label_smoothing, "ignore_index": ignore_index}
            for epsilon in (0.0, 2.0, [-1.0, 0.5]):
                given = *batch(shape, soft, ignore_index), epsilon
                actual = value_and_gradient(poly1_focal_loss, *given, gamma=0.0, reduction=reduction, **options)
                expected = value_and_gradient(poly1_cross_entropy, *given, reduction=reduction, **options)
                torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)

    @pytest.mark.parametrize("gamma", GAMMAS)
    def test_value_and_gradient_are_the_formula(self, reduction, soft, gamma):
        for shape, label_smoothing, num_terms in itertools.product(SHAPES, (0.0, 0.1), (None, 2)):
            weight = WEIGHT if num_terms is None else None
            options = {"weight": weight, "label_smoothing": label_smoothing, "gamma": gamma, "num_terms": num_terms}
            options |= {"reduction": reduction, "ignore_index": -100, "epsilon": [-1.0, 0.5]}
            given = batch(shape, soft)
            actual = value_and_gradient(poly1_focal_loss, *given, **options)
            expected = value_and_gradient(formula, *given, **options)
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("num_terms", [None, 3])
@given(
    logits=st.lists(st.floats(-12, 12), min_size=CLASSES, max_size=CLASSES),
    shares=st.lists(st.floats(0.001, 1), min_size=CLASSES, max_size=CLASSES),
    weight=st.lists(st.floats(0, 5), min_size=CLASSES, max_size=CLASSES),
    epsilon=st.lists(st.floats(-3, 8), min_size=1, max_size=3),
    gamma=st.one_of(st.sampled_from(GAMMAS), st.floats(0, 5)),
    label_smoothing=st.floats(0, 1),
)
def test_value_is_the_formula(num_terms, logits, shares, weight, epsilon, gamma, label_smoothing):
    input, q, weight = (torch.tensor(values, dtype=torch.float64) for values in (logits, shares, weight))
    options = {"gamma": gamma, "weight": weight, "label_smoothing": label_smoothing, "num_terms": num_terms}
    for target in (q / q.sum(), torch.tensor(1)):
        actual = poly1_focal_loss(input, target, epsilon, reduction="none", **options)
        expected = formula(input, target, epsilon, ignore_index=-100, reduction="none", **options)
        torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


def test_gamma_and_epsilon_zero_are_torch():
    input, target = batch((6, CLASSES), soft=False)
    actual = poly1_focal_loss(input, target, 0.0, gamma=0, weight=WEIGHT, label_smoothing=0.1)
    torch.testing.assert_close(actual, F.cross_entropy(input, target, weight=WEIGHT, label_smoothing=0.1))


@pytest.mark.parametrize("soft", [False, True])
def test_minus_one_removes_the_first_term_whatever_the_weights(soft):
    given = batch((6, CLASSES), soft)
    options = {"weight": WEIGHT, "reduction": "none", "gamma": 1.5}
    dropped = poly1_focal_loss(*given, 0.0, num_terms=1, **options)
    rest = poly1_focal_loss(*given, -1.0, **options)
    torch.testing.assert_close(rest + dropped, poly1_focal_loss(*given, 0.0, **options))


def test_a_one_hot_probability_is_its_class_index():
    input, index = 8 * torch.randn(50, CLASSES), torch.randint(CLASSES, (50,))
    for gamma in (0.0, 0.5, 2.0):
        soft = value_and_gradient(poly1_focal_loss, input, F.one_hot(index, CLASSES).float(), gamma=gamma)
        hard = value_and_gradient(poly1_focal_loss, input, index, gamma=gamma)
        torch.testing.assert_close(soft, hard, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), {}, ValueError, r"`target` .* got shape \(4,\)"),
        (torch.zeros(3), {}, TypeError, "class indices .* got torch.float32"),
        (torch.zeros(3, 2, dtype=torch.int64), {}, TypeError, "probabilities .* got torch.int64"),
        (torch.ones(3, 2), {"ignore_index": 1}, ValueError, "`ignore_index` .* probability targets, got 1"),
        (torch.tensor([0, 1, 1]), {"gamma": -0.5}, ValueError, "`gamma` .* got -0.5"),
        (torch.tensor([0, 1, 1]), {"gamma": torch.nan}, ValueError, "`gamma` .* got nan"),
        (torch.tensor([0, 1, 1]), {"gamma": True}, TypeError, "`gamma` .* got True"),
        (torch.tensor([0, 1, 1]), {"weight": torch.ones(3)}, ValueError, r"`weight` .* got shape \(3,\)"),
        (torch.tensor([0, 1, 1]), {"label_smoothing": True}, TypeError, "`label_smoothing` .* got True"),
        (torch.tensor([0, 1, 1]), {"label_smoothing": 2}, ValueError, "`label_smoothing` .* got 2"),
        (torch.tensor([0, 1, 1]), {"epsilon": []}, ValueError, "`epsilon` .* empty"),
    ],
)
def test_bad_input_is_refused_by_name(target, options, error, message):
    with pytest.raises(error, match=message):
        poly1_focal_loss(torch.zeros(3, 2), target, **options)


def test_without_classes_it_is_torch():
    input = torch.zeros(3, 0)
    for reduction in ("none", "mean", "sum"):
        actual = poly1_focal_loss(input, input, reduction=reduction)
        torch.testing.assert_close(actual, F.cross_entropy(input, input, reduction=reduction), equal_nan=True)
