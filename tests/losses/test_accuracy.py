"""Value and gradient of every loss in every dtype, against float64 on the same, rounded logits."""

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

GAMMAS = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0]
CLASSES = 6
LEADS = torch.cat([torch.linspace(-30, 30, 241), torch.tensor([18.420681, 60.0, -1e4, 1e4])])
SHARES = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625, 0.0])  # exact in every dtype
INDEX = torch.zeros(len(LEADS), dtype=torch.int64)
ONE_HOT = F.one_hot(INDEX, CLASSES)


def samples():
    """The first class leads or trails."""
    return torch.cat([LEADS[:, None], torch.randn(len(LEADS), CLASSES - 1)], 1)


def unfocused(odds, epsilon):
    """-log Pt + epsilon (1 - Pt) of log(Pt / (1 - Pt)), which keeps every digit of both Pt and 1 - Pt."""
    return -F.logsigmoid(odds) + epsilon * F.logsigmoid(-odds).exp()


def exact_softmax(input, q, gamma, epsilon):
    others = input.unsqueeze(1).masked_fill(torch.eye(CLASSES, dtype=torch.bool), -torch.inf)
    odds = input - others.logsumexp(2)
    return (q * (gamma * F.logsigmoid(-odds)).exp() * unfocused(odds, epsilon)).sum(1)


def exact_sigmoid(input, q, gamma, epsilon):
    return (gamma * log_miss(input, q)).exp() * (q * unfocused(input, epsilon) + (1 - q) * unfocused(-input, epsilon))


def log_miss(input, q):
    return torch.logaddexp(F.logsigmoid(-input) + q.log(), F.logsigmoid(input) + (1 - q).log())


def value_and_gradient(loss, input):
    input = input.detach().clone().requires_grad_()
    value = loss(input)
    return value.detach(), torch.autograd.grad(value.sum(), input)[0]


def tolerance(dtype, atol, rtol=2e-5):
    """The dtype's rounding on top of float32's error; float16 has nothing between 0 and 6e-8."""
    info = torch.finfo(dtype)
    return {"rtol": max(rtol, info.eps), "atol": max(atol, info.smallest_normal * info.eps)}


def assert_exact(loss, exact, input, autocast, atol, rtol=2e-5):
    """``atol`` is for what cancels."""
    expected = value_and_gradient(exact, input.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        actual = value_and_gradient(loss, input)
    assert actual[0].dtype == (torch.float32 if autocast else input.dtype)
    assert actual[1].dtype == input.dtype
    for ours, truth in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours.double(), truth, **tolerance(ours.dtype, atol, rtol))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.5])
class TestIsExactHoweverConfident:
    @pytest.mark.parametrize("gamma", GAMMAS)
    @pytest.mark.parametrize("target", [INDEX, ONE_HOT, SHARES], ids=["index", "one_hot", "soft"])
    def test_softmax_focal_loss(self, gamma, target, epsilon, autocast, dtype):
        q = (ONE_HOT if target is INDEX else target.expand_as(ONE_HOT)).double()
        assert_exact(
            lambda x: poly1_focal_loss(
                x, target if target is INDEX else q.to(dtype), epsilon, gamma=gamma, reduction="none"
            ),
            lambda x: exact_softmax(x, q, gamma, epsilon),
            samples().to(dtype),
            autocast,
            atol=1e-6 if target is SHARES else 1e-37,
        )

    @pytest.mark.parametrize("target", [INDEX, ONE_HOT, SHARES], ids=["index", "one_hot", "soft"])
    def test_cross_entropy(self, target, epsilon, autocast, dtype):
        q = (ONE_HOT if target is INDEX else target.expand_as(ONE_HOT)).double()
        assert_exact(
            lambda x: poly1_cross_entropy(x, target if target is INDEX else q.to(dtype), epsilon, reduction="none"),
            lambda x: exact_softmax(x, q, 0, epsilon),
            samples().to(dtype),
            autocast,
            atol=1e-6 if target is SHARES else 1e-37,
        )

    @pytest.mark.parametrize("smoothing", [0.001, 0.1])
    @pytest.mark.parametrize("gamma", [0.0, 2.0])
    @pytest.mark.parametrize("target", [INDEX, ONE_HOT], ids=["index", "one_hot"])
    def test_smoothed_softmax_focal_loss(self, gamma, target, smoothing, epsilon, autocast, dtype):
        """No loss comes near 0 here, so torch's own log_softmax is accurate enough."""
        options = {"gamma": gamma, "label_smoothing": smoothing, "reduction": "none"}
        assert_exact(
            lambda x: poly1_focal_loss(x, target if target is INDEX else target.to(dtype), epsilon, **options),
            lambda x: exact_softmax(x, (1 - smoothing) * ONE_HOT.double() + smoothing / CLASSES, gamma, epsilon),
            samples().to(dtype),
            autocast,
            atol=1e-6,
        )

    @pytest.mark.parametrize("gamma", GAMMAS)
    @pytest.mark.parametrize("share", [1.0, 0.0, 0.25])
    def test_sigmoid_focal_loss(self, gamma, share, epsilon, autocast, dtype):
        q = torch.full_like(LEADS, share)
        alpha_t = 0.25 * share + 0.75 * (1 - share)
        assert_exact(
            lambda x: poly1_sigmoid_focal_loss(x, q.to(dtype), epsilon, gamma=gamma, reduction="none"),
            lambda x: alpha_t * exact_sigmoid(x, q.double(), gamma, epsilon),
            LEADS.to(dtype),
            autocast,
            atol=1e-6 if share == 0.25 else 1e-37,
        )

    @pytest.mark.parametrize("share", [1.0, 0.0, 0.25])
    def test_binary_cross_entropy(self, share, epsilon, autocast, dtype):
        q = torch.full_like(LEADS, share)
        assert_exact(
            lambda x: poly1_binary_cross_entropy_with_logits(x, q.to(dtype), epsilon, reduction="none"),
            lambda x: exact_sigmoid(x, q.double(), 0, epsilon),
            LEADS.to(dtype),
            autocast,
            atol=1e-6 if share == 0.25 else 1e-37,
            rtol=2e-6,
        )


@pytest.mark.parametrize("size", [1e-4, 1e-8, 1e-12, 1e-30])
class TestTheCorrectionKeepsItsAccuracyWhereTheCrossEntropyIsTiny:
    """The size is the cross-entropy, and to first order the correction with epsilon 1."""

    def lead(self, size):
        """The logit gap of which ``softplus(-lead)`` is the size."""
        return -torch.tensor(size, dtype=torch.float64).expm1().log().float()

    def test_polynomial(self, size):
        log_p = torch.tensor(-size)
        correction = polynomial.value(log_p, (1.0,)) - polynomial.value(log_p, (0.0,))
        torch.testing.assert_close(correction, torch.tensor(size), rtol=1e-4, atol=0)

    @pytest.mark.parametrize("loss", [poly1_cross_entropy, lambda *args: poly1_focal_loss(*args, gamma=0.0)])
    @pytest.mark.parametrize("one_hot", [False, True])
    def test_softmax_losses(self, one_hot, loss, size):
        input = torch.stack([self.lead(size), torch.tensor(0.0)]).unsqueeze(0).requires_grad_()
        target = torch.tensor([[1.0, 0.0]]) if one_hot else torch.tensor([0])
        correction = loss(input, target, 1.0) - loss(input, target, 0.0)
        (gradient,) = torch.autograd.grad(correction, input)
        miss = torch.sigmoid(-(input[:, 0] - input[:, 1]).detach().double())
        torch.testing.assert_close(correction.detach(), miss.squeeze().float(), rtol=1e-5, atol=0)
        slope = -(miss * (1 - miss)).float().unsqueeze(1) * torch.tensor([1.0, -1.0])
        torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=0)

    def test_binary_cross_entropy(self, size):
        lead = self.lead(size)
        losses = [poly1_binary_cross_entropy_with_logits(lead, torch.tensor(1.0), epsilon) for epsilon in (1, 0)]
        torch.testing.assert_close(losses[0] - losses[1], torch.sigmoid(-lead.double()).float(), rtol=1e-5, atol=0)
