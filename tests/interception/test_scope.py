"""Replacing the losses of some modules and not of others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from polyloss_lightning.interception import LossOverrideError, override_losses

TARGET = torch.tensor([0, 1, 2, 0])


class Head(nn.Module):
    """Calls its loss in a method that is not ``forward``, as detectors do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.criterion = nn.CrossEntropyLoss()

    def compute_loss(self, x):
        return self.criterion(self.linear(x), TARGET)


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({"roi": Head(), "rpn": Head()})

    def forward(self, x):
        return torch.stack([head.compute_loss(x) for head in self.heads.values()])


@pytest.fixture
def detector():
    return Detector()


@pytest.mark.parametrize(
    ("scope", "replaced"),
    [
        (["heads.roi"], [True, False]),
        (["heads.rpn.criterion"], [False, True]),
        (["heads.*"], [True, True]),
        (["*.criterion"], [True, True]),
        (["heads.r?i"], [True, False]),
    ],
)
def test_losses_are_replaced_inside_of_the_named_modules_only(detector, scope, replaced):
    x = torch.randn(4, 4)
    plain = detector(x)
    with override_losses(2.0, scope=scope, module=detector) as override:
        actual = detector(x)
    with override_losses(2.0):
        poly = detector(x)
    assert torch.equal(actual, torch.where(torch.tensor(replaced), poly, plain))
    # Two heads of one class call it from one line: the scope, not the place, tells them apart.
    assert {site.replaced: site.reason for site in override.call_sites} == {
        one: "" if one else "outside of scope" for one in replaced
    }


def test_what_a_module_in_the_scope_calls_is_in_the_scope(detector):
    class Criterion(nn.Module):
        def forward(self, logits, target):
            return function(logits)

    def function(logits):
        return F.cross_entropy(logits, TARGET)

    detector.heads["roi"].criterion = Criterion()
    with override_losses(scope=["heads.roi"], module=detector) as override:
        detector(torch.randn(4, 4))
    assert [site.replaced for site in override.call_sites] == [True, False]


def test_a_path_that_names_no_module_is_an_error_with_the_paths_there_are(detector):
    with pytest.raises(ValueError, match=r"'roi_heads' matches no module of Detector: it has 'heads', 'heads.roi'"):
        override_losses(scope=["heads.*", "roi_heads"], module=detector)


def test_a_scope_in_which_nothing_is_called_is_an_error(detector):
    with (
        pytest.raises(LossOverrideError, match=r"(?s)within heads.roi.linear.*outside of scope"),
        override_losses(scope=["heads.roi.linear"], module=detector),
    ):
        detector(torch.randn(4, 4))


def test_no_hook_and_no_attribute_is_left_on_or_put_on_a_module(detector):
    before = [dict(vars(module)) for module in detector.modules()]
    with override_losses(scope=["heads.roi"], module=detector):
        detector(torch.randn(4, 4))
        assert [dict(vars(module)) for module in detector.modules()] == before
