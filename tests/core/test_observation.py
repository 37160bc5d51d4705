import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning import Poly1CrossEntropyLoss, polynomial
from polyloss_lightning.core import Observation, Polynomial, Softmax
from polyloss_lightning.core.entries import observe

CLASSES = 4


def observed(loss, input, target):
    seen = []
    with loss.register_observer(seen.append):
        result = loss(input, target)
    (observation,) = seen
    return result, observation


def weighted_sum(observation):
    log_p, weight, _, denominator, *parameters = observation
    return (weight * polynomial.value(log_p, *parameters)).sum() / denominator


@given(
    shape=st.sampled_from([(CLASSES,), (5, CLASSES), (0, CLASSES), (2, CLASSES, 3), (2, CLASSES, 2, 3)]),
    kind=st.sampled_from(["index", "probabilities"]),
    weight=st.none() | st.lists(st.floats(0, 10), min_size=CLASSES, max_size=CLASSES),
    ignore_index=st.sampled_from([-100, -1, 0, 2, 255]),
    reduction=st.sampled_from(["mean", "sum"]),
    label_smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    epsilon=st.lists(st.floats(-1 / 3, 6), min_size=1, max_size=3),
    num_terms=st.none() | st.integers(3, 6),
    scale=st.sampled_from([0.1, 1.0, 10.0, 1000.0]),
    seed=st.integers(0, 2**16),
)
def test_the_loss_is_the_weighted_sum_of_the_observation(
    shape, kind, weight, ignore_index, reduction, label_smoothing, epsilon, num_terms, scale, seed
):
    generator = torch.Generator().manual_seed(seed)
    class_dim = min(1, len(shape) - 1)
    input = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "index":
        target = torch.randint(CLASSES, shape[:class_dim] + shape[class_dim + 1 :], generator=generator)
        target = target.where(torch.rand(target.shape, generator=generator) > 0.3, ignore_index)
    else:
        ignore_index = -100
        target = torch.randn(shape, generator=generator, dtype=torch.float64).softmax(class_dim)
    loss = Poly1CrossEntropyLoss(
        epsilon,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        num_terms=num_terms,
    )
    result, observation = observed(loss, input, target)
    if observation.denominator == 0:  # smoothing can spread weight to other classes than those of the targets
        assert result.isnan()
    else:
        torch.testing.assert_close(weighted_sum(observation), result, rtol=1e-10, atol=1e-12)
    assert observation.log_p.shape == observation.weight.shape == observation.target.shape
    assert observation.log_p.dim() == 1
    assert ((observation.target >= 0) & (observation.target < CLASSES)).all()
    assert observation.denominator.dim() == 0


def test_without_reduction_the_denominator_is_that_of_mean():
    input, target = torch.randn(6, CLASSES), torch.tensor([0, 1, 2, 3, -100, 1])
    weight = [1.0, 2.0, 3.0, 4.0]
    _, observation = observed(Poly1CrossEntropyLoss(weight=weight, reduction="none"), input, target)
    torch.testing.assert_close(weighted_sum(observation), Poly1CrossEntropyLoss(weight=weight)(input, target))


def test_observation_has_no_graph():
    input = torch.randn(6, CLASSES, requires_grad=True)
    target = torch.randn(6, CLASSES).softmax(1).requires_grad_()
    loss = Poly1CrossEntropyLoss(weight=[1.0, 2.0, 3.0, 4.0])
    result, observation = observed(loss, input, target)
    assert result.requires_grad
    assert not any(item.requires_grad for item in observation if isinstance(item, torch.Tensor))


def test_observation_says_how_the_loss_was_computed():
    loss = Poly1CrossEntropyLoss([1.0, -0.25], num_terms=5)
    _, observation = observed(loss, torch.randn(3, CLASSES), torch.tensor([0, 1, 2]))
    assert observation.epsilon == (1.0, -0.25)
    assert observation.gamma == 0.0
    assert observation.num_terms == 5
    assert observation.target.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_observation_is_in_float32_at_least(dtype):
    _, observation = observed(Poly1CrossEntropyLoss(), torch.randn(3, CLASSES).to(dtype), torch.tensor([0, 1, 2]))
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert observation.log_p.dtype == observation.weight.dtype == expected


def test_the_sum_is_divided_by_one():
    entries = Softmax().entries(torch.randn(3, CLASSES), torch.tensor([0, 1, 2]))
    observation = observe(entries, Polynomial((1.0,)), "sum")
    assert isinstance(observation, Observation)
    assert observation.denominator == 1
    assert observe(entries, Polynomial((1.0,)), "mean").denominator == 3


def test_an_observed_loss_breaks_the_graph_and_says_so_under_fullgraph():
    loss = Poly1CrossEntropyLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    input, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with loss.register_observer(lambda observation: None), pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(input, target)
    torch.testing.assert_close(compiled(input, target), loss(input, target))
