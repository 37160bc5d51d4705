"""The closed form and the formula are the same loss, on every path that the closed form takes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import polyloss_lightning as poly
from polyloss_lightning.core import Polynomial, Sigmoid, Softmax, blocks
from polyloss_lightning.core import loss as core

pytestmark = pytest.mark.closed_form
CLASSES = 5
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 3.0, 1.0], dtype=torch.float64)


def index(shape):
    return torch.randint(CLASSES, (shape[0], *shape[2:]))


def some_ignored(shape):
    return index(shape).where(torch.rand(shape[0], *shape[2:]) < 0.7, -100)


def soft(shape):
    return torch.randn(shape, dtype=torch.float64).softmax(1)


def hard(shape):
    return torch.rand(shape, dtype=torch.float64).round()


def dense(shape):
    return torch.rand(shape, dtype=torch.float64)


def masked(shape):
    return dense(shape).where(torch.rand(shape) < 0.8, -100)


def hard_masked(shape):
    return hard(shape).where(torch.rand(shape) < 0.8, -100)


CASES = {
    "index": (Softmax(), index),
    "index-ignored": (Softmax(WEIGHT), some_ignored),
    "smoothed": (Softmax(label_smoothing=0.1), index),
    "smoothed-ignored": (Softmax(label_smoothing=0.1), some_ignored),
    "smoothed-weight": (Softmax(WEIGHT, label_smoothing=0.1), some_ignored),
    "probabilities": (Softmax(), soft),
    "probabilities-weight": (Softmax(WEIGHT, label_smoothing=0.2), soft),
    "hard": (Sigmoid(), hard),
    "hard-weight": (Sigmoid(WEIGHT, 2 * WEIGHT), hard_masked),
    "dense": (Sigmoid(), dense),
    "dense-weight": (Sigmoid(WEIGHT, 2 * WEIGHT), masked),
    "focal": (Sigmoid(alpha=0.25), hard),
    "focal-dense": (Sigmoid(WEIGHT, alpha=WEIGHT / 3), masked),
    "focal-index": (Sigmoid(alpha=0.25, target_format="class_index"), some_ignored),
}
POLYNOMIALS = [
    Polynomial((1.0,)),
    Polynomial((-1.0,)),
    Polynomial((2.0, -0.5, 0.25)),
    Polynomial((0.5,), num_terms=1),
    Polynomial((0.5,), num_terms=4),
    *(Polynomial((1.5,), gamma) for gamma in (0.5, 1.0, 2.0, 2.5)),
    Polynomial((1.5, -0.5), 0.3, 3),
]
cases = pytest.mark.parametrize(("link", "target_of"), CASES.values(), ids=CASES)


@pytest.fixture(params=["reads values", "as on a device", "in blocks"], autouse=True)
def path(request, monkeypatch):
    """On a device no value is read, since that would wait for it: every guard is computed for every element."""
    if request.param == "as on a device":
        monkeypatch.setattr(core, "is_in_torch_dispatch_mode", lambda: True)
    if request.param == "in blocks":
        monkeypatch.setattr(blocks, "SMALLEST", 7)


def value_and_gradient(function, input):
    input = input.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = function(input)
    weighing = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).view_as(loss)
    return loss.detach(), torch.autograd.grad((loss * weighing).sum(), input)[0]


@cases
@pytest.mark.parametrize("polynomial", POLYNOMIALS, ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_value_and_gradient_are_those_of_the_formula(link, target_of, polynomial, reduction):
    for shape, scale in (((6, CLASSES), 3.0), ((3, CLASSES, 4), 40.0)):
        input, target = scale * torch.randn(shape, dtype=torch.float64), target_of(shape)
        if len(shape) > 2 and isinstance(link, Sigmoid) and link.weight is not None:
            weight = link.weight.view(-1, 1)
            link = link._replace(weight=weight)
            link = link._replace(pos_weight=weight) if link.alpha is None else link

        def closed(x, link=link, target=target):
            loss = core.loss(link, x, target, polynomial, reduction)
            assert "ClosedForm" in type(loss.grad_fn).__name__
            return loss

        def formula(x, link=link, target=target):
            return core.reduce([link.entries(x, target)], polynomial, reduction)

        expected = value_and_gradient(formula, input)
        torch.testing.assert_close(value_and_gradient(closed, input), expected, rtol=1e-9, atol=1e-11)
        if len(shape) > 2:
            last = input.movedim(1, -1).contiguous().movedim(-1, 1)
            torch.testing.assert_close(value_and_gradient(closed, last), expected, rtol=1e-9, atol=1e-11)


@cases
@pytest.mark.parametrize("one_logit", [False, True])
def test_entries_are_those_of_the_formula(link, target_of, one_logit):
    """The closed form leaves out the entry of weight 0 of an element whose target is 0 or 1."""
    sigmoid = isinstance(link, Sigmoid)
    polynomial = Polynomial((1.0,), 2.0 if sigmoid and link.alpha is not None else 0.0)
    for shape in ((6, CLASSES), (3, CLASSES, 4), (7, 1), (7,)):
        if sigmoid:
            link = link._replace(weight=None, pos_weight=None)
        if (shape[-1] in (1, 7)) != one_logit or (one_logit and (not sigmoid or target_of is some_ignored)):
            continue
        if one_logit and isinstance(link.alpha, torch.Tensor):
            link = link._replace(alpha=0.25)
        input, target, seen = torch.randn(shape, dtype=torch.float64), target_of(shape), []
        core.loss(link, input.requires_grad_(), target, polynomial, "mean", seen.append)
        expected, actual = link.entries(input.detach(), target), seen[0]
        counts = expected.weight != 0
        if actual.log_p.shape != expected.log_p.shape:
            assert actual.log_p.shape == input.shape
            counts = counts.select(0, 0), counts.select(0, 1)
            assert not (counts[0] & counts[1]).any()
            parts = zip(*(getattr(expected, name).unbind() for name in ("log_p", "weight", "target")), strict=True)
            (log_p, weight, classes), (other_log_p, other_weight, other_classes) = parts
            positive = counts[0]
            expected = expected._replace(
                log_p=log_p.where(positive, other_log_p),
                weight=weight.where(positive, other_weight),
                target=classes.where(positive, other_classes),
                focal_base=None,
            )
            counts = counts[0] | counts[1]
        torch.testing.assert_close(actual.denominator, expected.denominator)
        torch.testing.assert_close(actual.weight.expand_as(counts), expected.weight)
        for name in ("log_p", "target", "focal_base"):
            one, other = getattr(actual, name), getattr(expected, name)
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one.expand_as(counts)[counts], other[counts])


@pytest.mark.parametrize("lead", [0.5, 5.0, 20.0, 40.0])
def test_the_gradient_at_epsilon_minus_one_keeps_its_digits(lead):
    """It is (1 - Pt)^2 and smaller: of 1 + epsilon Pt nothing would be left in float32."""
    input = torch.tensor([[lead, 0.0]], requires_grad=True)
    for loss, target in (
        (poly.poly1_focal_loss, torch.tensor([0])),
        (poly.poly1_focal_loss, torch.tensor([[1.0, 0.0]])),
        (poly.poly1_sigmoid_focal_loss, torch.tensor([[1.0, 0.0]])),
    ):
        # The value cancels, so only the gradient of cross-entropy has all its digits.
        (gradient,) = torch.autograd.grad(loss(input, target, -1.0, gamma=0.0, reduction="sum"), input)
        miss = torch.sigmoid(-input.detach().double()[:, :1])
        if loss is poly.poly1_focal_loss:
            torch.testing.assert_close(gradient[:, :1].double(), -(miss**2), rtol=1e-5, atol=0)
        else:
            torch.testing.assert_close(gradient[:, :1].double(), -0.25 * miss**2, rtol=1e-5, atol=0)


@given(
    targets=st.lists(st.sampled_from([0.0, 1.0, 1e-4, 0.5, 2.0, -1.0, 1e-30]), min_size=4, max_size=4),
    at_zero=st.booleans(),
)
def test_soft_targets_among_hard_ones_are_not_taken_for_hard(targets, at_zero):
    q = torch.tensor([[0.0, 1.0] * 30 + targets]).double()
    input = torch.zeros_like(q) if at_zero else torch.linspace(-30, 30, q.numel()).double().view_as(q)
    ours = value_and_gradient(lambda x: poly.poly1_binary_cross_entropy_with_logits(x, q, 0.0), input)
    theirs = value_and_gradient(lambda x: F.binary_cross_entropy_with_logits(x, q), input)
    torch.testing.assert_close(ours, theirs)


def test_one_soft_target_among_65536_hard_ones_counts():
    q = torch.zeros(1, 65536)
    q[0, 7] = 1e-4
    input = torch.full_like(q, -20.0)
    ours = poly.poly1_binary_cross_entropy_with_logits(input, q, 0.0, reduction="sum")
    torch.testing.assert_close(
        ours.double(), F.binary_cross_entropy_with_logits(input.double(), q.double(), reduction="sum")
    )
