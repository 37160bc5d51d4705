"""Poly-1 cross-entropy of a linear layer, against a float64 formula of its logits."""

import pytest
import torch
import torch.nn.functional as F

import polyloss_lightning as poly

ROWS, FEATURES, CLASSES = 40, 12, 50
OPTIONS = {
    "poly1": {"epsilon": 2.0},
    "base": {"epsilon": 0.0},
    "minus_one": {"epsilon": -1.0},
    "polyn": {"epsilon": [1.0, -0.25, 0.5]},
    "num_terms": {"epsilon": [0.5], "num_terms": 3},
    "weight": {"epsilon": 1.0, "weight": torch.linspace(0, 2, CLASSES)},
    "smoothed": {"epsilon": 1.0, "label_smoothing": 0.2},
    "smoothed_weight": {"epsilon": 1.0, "label_smoothing": 0.2, "weight": torch.linspace(0, 2, CLASSES)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_gradients_are_those_of_the_formula(
    formula, reduced, operands, assert_same, options, reduction, bias
):
    given = operands(bias)
    input, linear_weight, target, linear_bias = given
    loss = poly.Poly1LinearCrossEntropyLoss(reduction=reduction, **options)
    function = poly.poly1_linear_cross_entropy(
        input, linear_weight, target, linear_bias=linear_bias, reduction=reduction, **options
    )
    value = loss(input, linear_weight, target, linear_bias)
    smoothing = options.get("label_smoothing", 0.0)
    rest = {name: option for name, option in options.items() if name in ("weight", "num_terms")}
    epsilon = options["epsilon"] if isinstance(options["epsilon"], list) else [options["epsilon"]]
    expected = reduced(*formula(*given, epsilon=epsilon, smoothing=smoothing, **rest), reduction)
    assert torch.equal(function, value)
    assert_same(value, expected, given)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_value_and_gradients_of_probabilities_are_those_of_the_formula(
    formula, reduced, operands, assert_same, reduction, smoothing
):
    input, linear_weight, _, linear_bias = given = operands()
    target, weight = torch.randn(ROWS, CLASSES).softmax(-1), torch.linspace(0, 2, CLASSES)
    loss = poly.Poly1LinearCrossEntropyLoss(2.0, reduction=reduction, label_smoothing=smoothing, weight=weight)
    value = loss(input, linear_weight, target, linear_bias)
    terms = formula(input, linear_weight, target, linear_bias, epsilon=[2.0], smoothing=smoothing, weight=weight)
    assert_same(value, reduced(*terms, reduction), given)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_single_sample(formula, operands, assert_same, reduction):
    input, linear_weight, target, linear_bias = operands()
    value = poly.poly1_linear_cross_entropy(
        input[1], linear_weight, target[1], epsilon=2.0, linear_bias=linear_bias, reduction=reduction
    )
    expected, _ = formula(input[1], linear_weight, target[1], linear_bias, epsilon=[2.0])
    assert value.shape == ()
    assert_same(value, expected, (input, linear_weight, linear_bias))


def test_without_a_target_that_counts_the_mean_is_nan_as_in_torch(operands):
    input, linear_weight, target, _ = operands()
    target = torch.full_like(target, -100)
    assert poly.poly1_linear_cross_entropy(input, linear_weight, target).isnan()
    assert poly.poly1_linear_cross_entropy(input, linear_weight, target, reduction="sum") == 0


def test_base_loss_is_that_of_torch(operands):
    input, linear_weight, target, linear_bias = operands()
    weight = torch.linspace(0.5, 2, CLASSES)
    loss = poly.Poly1LinearCrossEntropyLoss(5.0, weight=weight)
    expected = F.cross_entropy(F.linear(input, linear_weight, linear_bias), target, weight)
    torch.testing.assert_close(loss.base_loss(input, linear_weight, target, linear_bias), expected)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision(formula, reduced, operands, gradients, autocast):
    given = operands(dtype=torch.float32 if autocast else torch.bfloat16)
    input, linear_weight, target, linear_bias = given
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = poly.Poly1LinearCrossEntropyLoss(2.0)(input, linear_weight, target, linear_bias)
        logits = F.linear(input, linear_weight, linear_bias)
        reference = F.cross_entropy(logits, target)
    assert value.dtype == reference.dtype
    expected = reduced(*formula(*given, epsilon=[2.0]), "mean")
    torch.testing.assert_close(value.double(), expected, rtol=2e-2, atol=0)
    for got, wanted in zip(gradients(value, given), gradients(expected, given), strict=True):
        assert got.dtype == wanted.dtype
        assert (got - wanted).float().norm() <= 0.03 * wanted.float().norm()


def test_a_second_backward_gives_the_same_gradient(operands):
    given = operands()
    value = poly.Poly1LinearCrossEntropyLoss(2.0)(*given[:3], given[3])
    first = torch.autograd.grad(value, given[0], retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(value, given[0])[0])


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"input": torch.randn(4, 3)}, ValueError, r"`input` must have shape \(D\) or \(N, D\) with D = 12.*\(4, 3\)"),
        ({"input": torch.randn(2, 2, 12)}, ValueError, r"`input` must have shape.*\(2, 2, 12\)"),
        ({"target": torch.zeros(5, dtype=torch.long)}, ValueError, r"`target` must.*indices of shape \(4,\).*\(5,\)"),
        ({"target": torch.zeros(4, dtype=torch.int32)}, TypeError, "`target`.*torch.int64.*torch.int32"),
        ({"linear_bias": torch.zeros(3)}, ValueError, r"`linear_bias` must have shape \(50,\).*\(3,\)"),
        ({"weight": torch.ones(3)}, ValueError, r"`weight` must have shape \(50,\).*\(3,\)"),
        ({"reduction": "avg"}, ValueError, "`reduction`.*avg"),
        ({"label_smoothing": 2.0}, ValueError, "`label_smoothing`.*2.0"),
        ({"epsilon": "1"}, TypeError, "`epsilon`"),
    ],
)
def test_bad_arguments_are_errors(change, error, match):
    arguments = {
        "input": torch.randn(4, FEATURES),
        "linear_weight": torch.randn(CLASSES, FEATURES),
        "target": torch.zeros(4, dtype=torch.long),
    }
    with pytest.raises(error, match=match):
        poly.poly1_linear_cross_entropy(**{**arguments, **change})
