"""Epsilon, Poly-N and the truncated series, against formulas in float64 and the paper's own numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from polyloss_lightning import poly1_cross_entropy

CLASSES = 4
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
EPSILONS = [-2.0, -1.0, -0.5, 1.0, 5.45, (1.0, -0.5), (-0.5, 0.25, 2.0)]


def formula(input, share, epsilon, weight=None, num_terms=None):
    """``sum_k q_k w_k [series(p_k) + sum_j eps_j (1-p_k)^j]`` for each row of ``[N, C]``."""
    p = input.softmax(1)
    epsilon = [epsilon] if isinstance(epsilon, float) else epsilon
    each = -p.log() if num_terms is None else sum((1 - p) ** j / j for j in range(1, num_terms + 1))
    each = each + sum(e * (1 - p) ** j for j, e in enumerate(epsilon, start=1))
    return (share * each * (1.0 if weight is None else weight)).sum(1)


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [(2.0, 4.5317), (1.0, 3.7153), (0.0, 2.8990), (-0.5, 2.4908), (-1.0, 2.0827), (5.45, 7.3480)],
)
def test_golden_values_of_the_papers_code_for_one_sample(epsilon, expected):
    input = torch.tensor([0.14, 1.456, 2.356, -0.124, -2.47])
    target = torch.tensor([0.1, 0.15, 0.2, 0.25, 0.3])
    assert poly1_cross_entropy(input, target, epsilon).item() == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [(2.0, [0.4823, 1.2567]), (1.0, [0.3261, 1.0407]), (0.0, [0.1698, 0.8247]), (-0.5, [0.0917, 0.7168])],
)
def test_golden_values_of_the_papers_code_for_a_batch(epsilon, expected):
    input = torch.tensor([[4.0, 2.0, 1.0], [0.0, 5.0, 1.0]])
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.8, 0.2]])
    actual = poly1_cross_entropy(input, target, epsilon, reduction="none")
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=6e-5)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_terms", [None, 3])
class TestFormula:
    def options(self, epsilon, weight, label_smoothing, num_terms):
        return {
            "epsilon": epsilon,
            "weight": weight,
            "label_smoothing": label_smoothing,
            "num_terms": num_terms,
        }

    def test_for_class_indices(self, epsilon, weight, label_smoothing, num_terms):
        input, target = torch.randn(7, CLASSES, dtype=torch.float64), torch.randint(CLASSES, (7,))
        share = (1 - label_smoothing) * F.one_hot(target, CLASSES) + label_smoothing / CLASSES
        expected = formula(input, share, epsilon, weight, num_terms)
        options = self.options(epsilon, weight, label_smoothing, num_terms)
        torch.testing.assert_close(poly1_cross_entropy(input, target, reduction="none", **options), expected)
        denominator = 7 if weight is None else weight[target].sum()
        torch.testing.assert_close(poly1_cross_entropy(input, target, **options), expected.sum() / denominator)

    def test_for_probabilities(self, epsilon, weight, label_smoothing, num_terms):
        input, target = torch.randn(7, CLASSES, dtype=torch.float64), torch.randn(7, CLASSES).double().softmax(1)
        share = (1 - label_smoothing) * target + label_smoothing / CLASSES
        expected = formula(input, share, epsilon, weight, num_terms)
        options = self.options(epsilon, weight, label_smoothing, num_terms)
        torch.testing.assert_close(poly1_cross_entropy(input, target, reduction="none", **options), expected)
        torch.testing.assert_close(poly1_cross_entropy(input, target, **options), expected.mean())

    def test_for_dense_targets_pixel_by_pixel(self, epsilon, weight, label_smoothing, num_terms):
        input, target = torch.randn(2, CLASSES, 3, 2, dtype=torch.float64), torch.randint(CLASSES, (2, 3, 2))
        options = self.options(epsilon, weight, label_smoothing, num_terms)
        actual = poly1_cross_entropy(input, target, reduction="none", **options)
        rows = poly1_cross_entropy(
            input.movedim(1, -1).reshape(-1, CLASSES), target.flatten(), reduction="none", **options
        )
        torch.testing.assert_close(actual, rows.view(2, 3, 2))


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("epsilon", [-1.0, -0.5, 0.0, 2.0])
def test_logit_gradient_is_that_of_cross_entropy_times_one_plus_epsilon_pt(weight, epsilon):
    input = (3 * torch.randn(9, CLASSES, dtype=torch.float64)).requires_grad_()
    target = torch.randint(CLASSES, (9,))
    loss = poly1_cross_entropy(input, target, epsilon, weight=weight, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, input)
    p = input.detach().softmax(1)
    pt = p.gather(1, target[:, None])
    factor = (1 + epsilon * pt) * (1.0 if weight is None else weight[target][:, None])
    torch.testing.assert_close(gradient, factor * (p - F.one_hot(target, CLASSES)))
    if epsilon == -1.0:  # nothing of the first term is left, whatever the weight
        of_target = gradient.gather(1, target[:, None])
        torch.testing.assert_close(of_target, -((1 - pt) ** 2) * (1.0 if weight is None else weight[target][:, None]))


@pytest.mark.parametrize("weight", [None, WEIGHT, 100 * WEIGHT])
def test_epsilon_minus_one_removes_the_first_term_for_every_weight(weight):
    """The loss falls with the square of 1 - Pt: halving 1 - Pt quarters it."""
    miss = torch.tensor([1e-3, 5e-4], dtype=torch.float64)
    input = torch.stack([(1 - miss).log(), *[(miss / 3).log()] * 3], 1)
    far, near = poly1_cross_entropy(input, torch.tensor([0, 0]), -1.0, weight=weight, reduction="none")
    assert (far / near).item() == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize("epsilon", [1.0, (-0.5, 0.25)])
def test_gradient_of_a_soft_target_is_the_value_of_its_class(epsilon):
    input, target = torch.randn(5, CLASSES, dtype=torch.float64), torch.rand(5, CLASSES, dtype=torch.float64)
    target.requires_grad_()
    loss = poly1_cross_entropy(input, target, epsilon, weight=WEIGHT, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, target)
    expected = [formula(input, F.one_hot(torch.tensor(k), CLASSES), epsilon, WEIGHT) for k in range(CLASSES)]
    torch.testing.assert_close(gradient, torch.stack(expected, 1))


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_terms", [None, 3])
@pytest.mark.parametrize("shape", [(CLASSES,), (3, CLASSES), (2, CLASSES, 2)])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("epsilon", [1.0, (-1.0, 0.5)])
def test_derivatives_match_finite_differences(weight, label_smoothing, num_terms, shape, soft, epsilon):
    class_dim = min(1, len(shape) - 1)
    input = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    target = torch.randint(CLASSES, shape[:class_dim] + shape[class_dim + 1 :])
    if soft:
        target = torch.randn(shape, dtype=torch.float64).softmax(class_dim).requires_grad_()
    elif target.dim():
        target[0] = -100

    def loss(input, target):
        return poly1_cross_entropy(
            input, target, epsilon, weight=weight, label_smoothing=label_smoothing, num_terms=num_terms
        )

    assert gradcheck(loss, (input, target))
    assert gradgradcheck(loss, (input, target))


@pytest.mark.parametrize("gap", [1.0, 5.0, 10.0, 14.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_keeps_the_correction_of_confident_samples(dtype, gap):
    """``1 - softmax`` is 0 in bfloat16 from a gap of 7 on; the gradient is ``-(1-Pt)(1 + eps Pt)`` still."""
    input = torch.tensor([gap, 0.0], dtype=dtype, requires_grad=True)
    poly1_cross_entropy(input, torch.tensor(0), 4.0).backward()
    pt = 1 / (1 + math.exp(-gap))
    assert input.grad[0].item() == pytest.approx(-(1 - pt) * (1 + 4 * pt), rel=4 * torch.finfo(dtype).eps, abs=2e-7)


@pytest.mark.parametrize("num_terms", [1, 2, 5])
def test_truncated_series_is_bounded(num_terms):
    loss = poly1_cross_entropy(torch.tensor([-1e4, 0.0]), torch.tensor(0), 0.0, num_terms=num_terms)
    assert loss.item() == pytest.approx(sum(1 / j for j in range(1, num_terms + 1)))


def test_the_default_is_epsilon_one_and_mean():
    input, target = torch.randn(5, CLASSES), torch.randint(CLASSES, (5,))
    torch.testing.assert_close(
        poly1_cross_entropy(input, target), poly1_cross_entropy(input, target, 1.0, reduction="mean")
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilon": math.nan}, ValueError, "`epsilon` must be finite .* nan"),
        ({"epsilon": "1"}, TypeError, "`epsilon` must be a finite number .* '1'"),
        ({"epsilon": (1.0, 2.0), "num_terms": 1}, ValueError, "`num_terms` must be at least .* got 1"),
        ({"num_terms": 0}, ValueError, "`num_terms` .* got 0"),
        ({"reduction": "avg"}, ValueError, "`reduction` must be one of .* got 'avg'"),
        ({"label_smoothing": 1.5}, ValueError, r"`label_smoothing` must be in \[0, 1\], got 1.5"),
        ({"label_smoothing": -0.1}, ValueError, r"`label_smoothing` must be in \[0, 1\], got -0.1"),
        ({"label_smoothing": math.nan}, ValueError, r"`label_smoothing` must be in \[0, 1\], got nan"),
        ({"label_smoothing": True}, TypeError, "`label_smoothing` .* got True"),
        ({"ignore_index": True}, TypeError, "`ignore_index` .* got True"),
        ({"weight": torch.ones(3)}, ValueError, r"`weight` must have shape \(4,\).* got shape \(3,\)"),
        ({"weight": torch.ones(1, 4)}, ValueError, r"`weight` must have shape \(4,\).* got shape \(1, 4\)"),
    ],
)
def test_bad_options_are_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        poly1_cross_entropy(torch.randn(2, CLASSES), torch.tensor([0, 1]), **options)
