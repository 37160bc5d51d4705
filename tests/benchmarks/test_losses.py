"""The benchmark compares what is comparable, and counts what waits for backward."""

import pytest
import torch


@pytest.fixture(scope="module")
def losses(load):
    return load("losses")


@pytest.mark.parametrize(("cases", "shape"), [("softmax_cases", (6, 4, 3)), ("sigmoid_cases", (6, 4))])
def test_the_usual_formulation_is_the_same_loss(losses, cases, shape):
    input = torch.randn(shape)
    compared = 0
    for _, case in getattr(losses, cases)(shape, "cpu"):
        if "usual" in case:
            torch.testing.assert_close(case["Poly-1"](input), case["usual"](input))
            compared += 1
    assert compared > 0


def test_what_waits_for_backward_is_counted_without_the_logits(losses):
    input, factor = torch.randn(100, requires_grad=True), torch.randn(100)
    assert losses.kept(lambda x: x.square().sum(), input) == 0
    assert losses.kept(lambda x: x.exp().sum(), input) == 1
    assert losses.kept(lambda x: (x * factor).exp().sum(), input) == 2
    assert losses.kept(lambda x: (x.exp().detach() * x).sum(), input) == 1


def test_seconds_are_taken_of_every_loss_in_every_round(losses):
    input = torch.randn(1000, requires_grad=True)
    taken = losses.seconds({"a": torch.sum, "b": torch.mean}, input, rounds=3)
    assert {name: len(times) for name, times in taken.items()} == {"a": 3, "b": 3}
    assert min(taken["a"] + taken["b"]) > 0
