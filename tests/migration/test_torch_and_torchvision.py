"""torch 2.14.1 and torchvision 0.29.1: at epsilon 0 nothing changes but torchvision's default reduction."""

import pytest
import torch
import torch.nn.functional as F

from polyloss_lightning import Poly1BCEWithLogitsLoss, Poly1CrossEntropyLoss, poly1_cross_entropy


def focal(input, labels, alpha=0.25, gamma=2.0):
    p = input.sigmoid()
    miss = labels * (1 - p) + (1 - labels) * p
    return (alpha * labels + (1 - alpha) * (1 - labels)) * miss**gamma * binary(input, labels)


def binary(input, labels):
    return -labels * input.sigmoid().log() - (1 - labels) * (-input).sigmoid().log()


def cross_entropy(input, target, weight):
    w = weight[target]
    return -(w * input.softmax(1)[torch.arange(len(target)), target].log()).sum() / w.sum()


FORMULAS = {
    "torch.nn.CrossEntropyLoss(weight)(input, target)": lambda b: cross_entropy(b.input, b.target, b.weight),
    "torch.nn.BCEWithLogitsLoss()(input, labels)": lambda b: binary(b.input, b.labels),
    "torch.nn.functional.linear_cross_entropy(input, linear_weight, target)": lambda b: cross_entropy(
        b.input @ b.linear_weight.T, b.target, torch.ones(4, dtype=torch.float64)
    ),
    "torchvision.ops.sigmoid_focal_loss(input, labels)": lambda b: focal(b.input, b.labels),
    "torchvision.ops.sigmoid_focal_loss(input, labels, 0.5)": lambda b: focal(b.input, b.labels, 0.5),
}


def test_numbers_of_the_page(check_page):
    check_page("torch and torchvision", FORMULAS)


def test_the_formulas_are_what_torch_and_torchvision_compute(batch):
    ops = pytest.importorskip("torchvision.ops")
    old = {"torch": torch, "torchvision": type("torchvision", (), {"ops": ops}), **vars(batch)}
    for call, formula in FORMULAS.items():
        if "linear" in call and not hasattr(F, "linear_cross_entropy"):
            continue  # new in torch 2.14
        torch.testing.assert_close(formula(batch).mean(), eval(call, dict(old)).mean())


@pytest.mark.parametrize("loss", [Poly1CrossEntropyLoss, Poly1BCEWithLogitsLoss])
def test_a_weight_in_the_first_place_is_refused(loss, batch):
    with pytest.raises(TypeError, match="`epsilon` must be"):
        loss(batch.weight)


def test_a_weight_in_the_third_place_of_the_function_is_refused(batch):
    assert F.cross_entropy(batch.input, batch.target, batch.weight).isfinite()
    with pytest.raises(TypeError, match="`epsilon` must be"):
        poly1_cross_entropy(batch.input, batch.target, batch.weight)
