"""The linear loss by its definition, and what it is called with."""

import pytest
import torch
import torch.nn.functional as F

from polyloss_lightning.core import linear_softmax

ROWS, FEATURES, CLASSES = 40, 12, 50


@pytest.fixture(autouse=True)
def _a_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(linear_softmax, "_FEW", 1)
    monkeypatch.setattr(linear_softmax, "_ROWS", 15)  # at most: three parts of 14, 14 and 12
    monkeypatch.setattr(linear_softmax, "_CACHE", 1)


def formula(input, linear_weight, target, linear_bias=None, *, epsilon, weight=None, smoothing=0.0, num_terms=None):
    """Numerator of each sample, and the weight that it adds to the denominator of the mean, in float64."""
    bias = 0 if linear_bias is None else linear_bias.double()
    log_p = (input.double() @ linear_weight.double().T + bias).log_softmax(-1)
    p, classes = log_p.exp(), log_p.shape[-1]
    series = -log_p
    if num_terms is not None:
        series = sum((1 - p) ** j / j for j in range(1, num_terms + 1))
    for j, value in enumerate(epsilon, start=1):
        series = series + value * (1 - p) ** j
    class_weight = torch.ones(classes, dtype=torch.float64) if weight is None else weight.double()
    if target.is_floating_point():
        share = target.double() * (1 - smoothing) + smoothing / classes
        return (share * class_weight * series).sum(-1), torch.ones(log_p.shape[:-1], dtype=torch.float64)
    counts = target != -100
    index = target.where(counts, 0).long()
    share = F.one_hot(index, classes).double() * (1 - smoothing) + smoothing / classes
    numerator = (share * class_weight * series).sum(-1)
    return numerator * counts, class_weight[index] * counts


def reduced(numerator, weight, reduction):
    if reduction == "none":
        return numerator
    return numerator.sum() / (weight.sum() if reduction == "mean" else 1)


def operands(bias=True, dtype=torch.float32):
    input, linear_weight, linear_bias = (
        torch.randn(ROWS, FEATURES),
        torch.randn(CLASSES, FEATURES),
        torch.randn(CLASSES),
    )
    target = torch.randint(CLASSES, (ROWS,))
    target[::7] = -100
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (input, linear_weight, linear_bias)]
    return leaves[0], leaves[1], target, (leaves[2] if bias else None)


def gradients(value, operands):
    leaves = [tensor for tensor in operands if tensor is not None and tensor.requires_grad]
    # Different factors for the samples, so that an error of one does not cancel that of another.
    factor = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view_as(value)
    return torch.autograd.grad((value * factor).sum(), leaves)


def assert_same(value, expected, operands):
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    for got, wanted in zip(gradients(value, operands), gradients(expected, operands), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture(name="formula", scope="session")
def formula_fixture():
    return formula


@pytest.fixture(name="reduced", scope="session")
def reduced_fixture():
    return reduced


@pytest.fixture(name="operands", scope="session")
def operands_fixture():
    return operands


@pytest.fixture(name="gradients", scope="session")
def gradients_fixture():
    return gradients


@pytest.fixture(name="assert_same", scope="session")
def assert_same_fixture():
    return assert_same
