"""No loss has a value or derivative that is not finite, and in float32 both are right to the last digits."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from polyloss_lightning import (
    poly1_binary_cross_entropy_with_logits,
    poly1_cross_entropy,
    poly1_focal_loss,
    poly1_sigmoid_focal_loss,
    polynomial,
)

INF = torch.inf
GAMMAS = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0]
SIZES = [0, 1, 5, 10, 17, 20, 30, 40, 60, 80, 87, 88, 95, 100, 104, 200, 1e3, 1e4]
ROWS = [
    row
    for s in SIZES
    for row in ([s, 0, 0], [0, s, 0], [-s, 0, 0], [-s, s, 0], [s, s, s], [s, -INF, -INF], [s, 0, -INF], [-s, 1, -INF])
]
LOGITS = torch.tensor(ROWS, dtype=torch.float32)
INDEX = torch.zeros(len(LOGITS), dtype=torch.int64)
HARD = torch.tensor([1.0, 0.0, 0.0]).expand_as(LOGITS)
SOFT = torch.where((LOGITS == -INF).any(1, keepdim=True), HARD, torch.tensor([0.7, 0.3, 0.0]))
SOFT_SIGMOID = torch.where(LOGITS == -INF, 0.0, torch.tensor([0.6, 0.2, 1.0]))

LOSSES = {
    "cross_entropy": lambda x, gamma, **options: poly1_cross_entropy(x, INDEX, **options),
    "cross_entropy_soft": lambda x, gamma, **options: poly1_cross_entropy(x, SOFT, **options),
    "binary": lambda x, gamma, **options: poly1_binary_cross_entropy_with_logits(x, HARD, **options),
    "binary_soft": lambda x, gamma, **options: poly1_binary_cross_entropy_with_logits(x, SOFT_SIGMOID, **options),
    "focal": lambda x, gamma, **options: poly1_focal_loss(x, INDEX, gamma=gamma, **options),
    "focal_soft": lambda x, gamma, **options: poly1_focal_loss(x, SOFT, gamma=gamma, **options),
    "sigmoid_focal": lambda x, gamma, **options: poly1_sigmoid_focal_loss(x, HARD, gamma=gamma, **options),
    "sigmoid_focal_soft": lambda x, gamma, **options: poly1_sigmoid_focal_loss(x, SOFT_SIGMOID, gamma=gamma, **options),
}
with_losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@with_losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_value_gradient_and_second_derivative_are_finite(loss, dtype, autocast):
    for gamma, epsilon, num_terms in itertools.product(GAMMAS, (0.0, 1.0, [-1.0, 2.0, 0.5]), (None, 3)):
        input = LOGITS.to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss(input, gamma, epsilon=epsilon, num_terms=num_terms, reduction="none")
        (gradient,) = torch.autograd.grad(value.sum(), input, create_graph=True)
        (second,) = torch.autograd.grad((gradient * torch.randn_like(gradient)).sum(), input)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert second.isfinite().all()


def value_and_gradient(loss, input):
    input = input.detach().clone().requires_grad_()
    value = loss(input)
    return value.detach().double(), torch.autograd.grad(value.sum(), input)[0].double()


def exact(odds, gamma, epsilon):
    """The loss in terms of log(Pt / (1 - Pt)), which keeps every digit of both Pt and 1 - Pt."""
    log_miss = F.logsigmoid(-odds)
    return (gamma * log_miss).exp() * (-F.logsigmoid(odds) + epsilon * log_miss.exp())


def exact_softmax(input, gamma, epsilon):
    gap = input - input[:, :1]
    return exact(-gap[:, 1:].logsumexp(1), gamma, epsilon)


@pytest.mark.parametrize("gamma", GAMMAS[1:])
@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.5])
class TestFloat32IsExactHoweverConfident:
    leads = torch.cat([torch.linspace(-30, 30, 241), torch.tensor([18.420681, 60.0, -1e4, 1e4])])

    def samples(self, classes):
        input = torch.randn(len(self.leads), classes)
        input[:, 0] = self.leads
        return input

    def test_softmax_focal_loss(self, gamma, epsilon):
        input = self.samples(6)
        index = torch.zeros(len(input), dtype=torch.int64)
        expected = value_and_gradient(lambda x: exact_softmax(x, gamma, epsilon), input.double())
        for target in (index, F.one_hot(index, 6).float()):
            actual = value_and_gradient(
                lambda x, target=target: poly1_focal_loss(x, target, epsilon, gamma=gamma, reduction="none"), input
            )
            torch.testing.assert_close(actual, expected, rtol=2e-5, atol=1e-37)

    def test_sigmoid_focal_loss(self, gamma, epsilon):
        expected = value_and_gradient(lambda x: 0.25 * exact(x, gamma, epsilon), self.leads.double())
        actual = value_and_gradient(
            lambda x: poly1_sigmoid_focal_loss(x, torch.ones_like(x), epsilon, gamma=gamma, reduction="none"),
            self.leads,
        )
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=1e-37)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.5])
def test_binary_cross_entropy_in_float32_is_exact_however_confident(epsilon):
    leads = TestFloat32IsExactHoweverConfident.leads
    for sign in (1, -1):
        target = torch.full_like(leads, float(sign > 0))
        expected = value_and_gradient(lambda x, sign=sign: exact(sign * x, 0, epsilon), leads.double())
        actual = value_and_gradient(
            lambda x, target=target: poly1_binary_cross_entropy_with_logits(x, target, epsilon, reduction="none"), leads
        )
        torch.testing.assert_close(actual, expected, rtol=2e-6, atol=1e-37)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.5])
def test_cross_entropy_in_float32_is_as_accurate_as_the_log_softmax_of_torch(epsilon):
    input = TestFloat32IsExactHoweverConfident().samples(6)
    value, gradient = value_and_gradient(lambda x: exact_softmax(x, 0, epsilon), input.double())
    for target in (INDEX.new_zeros(len(input)), F.one_hot(INDEX.new_zeros(len(input)), 6).float()):
        actual = value_and_gradient(
            lambda x, target=target: poly1_cross_entropy(x, target, epsilon, reduction="none"), input
        )
        torch.testing.assert_close(actual[0], value, rtol=2e-5, atol=5e-7)
        torch.testing.assert_close(actual[1], gradient, rtol=2e-5, atol=5e-7)


@pytest.mark.parametrize("size", [1e-4, 1e-8, 1e-12, 1e-30])
def test_the_correction_keeps_its_accuracy_where_the_cross_entropy_is_tiny(size):
    lead = -torch.tensor(size, dtype=torch.float64).expm1().log().float()  # softplus(-lead) is the size
    expected = torch.sigmoid(-lead.double()).float()
    binary = [
        poly1_binary_cross_entropy_with_logits(lead, torch.tensor(1.0), epsilon, reduction="sum") for epsilon in (1, 0)
    ]
    torch.testing.assert_close(binary[0] - binary[1], expected, rtol=1e-5, atol=0)
    log_p = torch.tensor(-size)
    correction = polynomial.value(log_p, (1.0,)) - polynomial.value(log_p, (0.0,))
    torch.testing.assert_close(correction, torch.tensor(size), rtol=1e-4, atol=0)


def test_the_correction_of_cross_entropy_keeps_its_accuracy_at_1e_8():
    input = torch.tensor([[18.420680743952367, 0.0]], dtype=torch.float64)  # 1 - Pt is 1e-8
    losses = [poly1_cross_entropy(input, torch.tensor([0]), epsilon) for epsilon in (1e6, 0.0)]
    torch.testing.assert_close(losses[0] - losses[1], torch.tensor(1e-2, dtype=torch.float64), rtol=1e-7, atol=0)


@pytest.mark.parametrize("loss", [poly1_cross_entropy, poly1_focal_loss])
def test_an_impossible_target_costs_infinity_as_in_torch(loss):
    input = torch.tensor([[-INF, 1.0, 0.0]])
    assert loss(input, torch.tensor([0])) == INF
    assert F.cross_entropy(input, torch.tensor([0])) == INF
