import math

import pytest
import torch

from polyloss_lightning import PolynomialTerms
from polyloss_lightning.losses import Poly1CrossEntropyLoss, Poly1FocalLoss


def values_of(loss, input, target):
    metric = PolynomialTerms(num_classes=3)
    with loss.register_observer(metric.update):
        loss(input, target)
    return metric.compute()


@pytest.mark.parametrize(
    "loss", [Poly1CrossEntropyLoss(), Poly1FocalLoss(gamma=0.5), Poly1CrossEntropyLoss(num_terms=2)]
)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_no_numbers_give_values_that_are_none(loss, broken):
    input, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 1])
    input[0, 0] = broken
    values = values_of(loss, input, target)
    for name in ("term_1", "tail", "loss", "base_loss", "first_term_share", "pt"):
        assert values[name].isnan(), name
    assert values["class_pt"].isnan().tolist() == [True, False, False]
    assert values["class_count"].tolist() == [2, 3, 1]
    assert values["pt_histogram"].sum() == 6
    assert values["pt_histogram"][0] >= 1


def test_a_logit_of_minus_infinity_is_a_pt_of_zero():
    input, target = torch.zeros(2, 3), torch.tensor([0, 1])
    input[0, 0] = -math.inf
    values = values_of(Poly1CrossEntropyLoss(), input, target)
    assert values["loss"] == math.inf
    assert float(values["pt"]) == pytest.approx(1 / 6)
    assert values["pt_histogram"][0] == 1
