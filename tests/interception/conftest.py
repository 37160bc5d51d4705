from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


def softmax_reference(
    logits: Tensor,
    target: Tensor,
    epsilon: Any = 1.0,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    smoothing: float = 0.0,
) -> Tensor:
    """Poly-N cross-entropy of ``[N, C]`` logits by its definition: float64, one sample and one class at a time."""
    epsilons = [epsilon] if isinstance(epsilon, int | float) else list(epsilon)
    count, classes = logits.shape
    weights = torch.ones(classes, dtype=torch.float64) if weight is None else weight.double()
    probability = logits.double().softmax(1)
    losses, norm = [], torch.zeros((), dtype=torch.float64)
    for sample in range(count):
        if target.dim() == 1 and target[sample] == ignore_index:
            losses.append(torch.zeros((), dtype=torch.float64))
            continue
        if target.dim() == 1:
            share = torch.zeros(classes, dtype=torch.float64)
            share[target[sample]] = 1
            norm = norm + weights[target[sample]]
        else:
            share = target[sample].double()
            norm = norm + 1
        share = share * (1 - smoothing) + smoothing / classes
        p = probability[sample]
        value = -p.log() + sum(e * (1 - p) ** j for j, e in enumerate(epsilons, start=1))
        losses.append((share * weights * value).sum())
    loss = torch.stack(losses)
    return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / norm}[reduction]


def sigmoid_reference(
    logits: Tensor,
    target: Tensor,
    epsilon: float = 1.0,
    *,
    weight: Any = 1,
    pos_weight: Any = 1,
    reduction: str = "mean",
) -> Tensor:
    """Poly-1 binary cross-entropy by its definition, in float64."""
    p, q = logits.double().sigmoid(), target.double()
    loss = weight * (pos_weight * q * (-p.log() + epsilon * (1 - p)) + (1 - q) * (-(1 - p).log() + epsilon * p))
    return {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]


@pytest.fixture(name="softmax_reference", scope="session")
def softmax_reference_fixture() -> Callable[..., Tensor]:
    return softmax_reference


@pytest.fixture(name="sigmoid_reference", scope="session")
def sigmoid_reference_fixture() -> Callable[..., Tensor]:
    return sigmoid_reference
