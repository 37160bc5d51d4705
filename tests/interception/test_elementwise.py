"""Losses of reduction "none": refused, skipped, or replaced and followed."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from polyloss_lightning.interception import LossOverrideError, override_losses

TARGET = torch.tensor([0, 1, 2, 0])


@pytest.fixture
def logits():
    return torch.randn(4, 3, requires_grad=True)


def test_by_default_an_elementwise_loss_is_an_error(logits):
    with pytest.raises(LossOverrideError, match="elementwise='apply'"), override_losses():
        F.binary_cross_entropy_with_logits(logits, torch.rand(4, 3), reduction="none")


def test_skip_leaves_it_and_says_so(logits):
    with override_losses(elementwise="skip") as override:
        loss = F.cross_entropy(logits, TARGET, reduction="none")
        F.cross_entropy(logits, TARGET)
    assert torch.equal(loss, F.cross_entropy(logits, TARGET, reduction="none"))
    assert [site.reason for site in override.call_sites] == ["elementwise='skip'", ""]


def test_a_mask_and_a_mean_may_follow_with_apply(softmax_reference, logits):
    """As in chemprop, torchvision's SSD and pytorch-forecasting."""
    mask = torch.tensor([True, False, True, True])
    with override_losses(2.0, elementwise="apply"):
        loss = F.cross_entropy(logits, TARGET, reduction="none").view(2, 2)
        hardest = loss.flatten().sort(descending=True)[0][:2].sum()
        masked = (loss * mask.view(2, 2)).sum() / mask.sum()
    expected = softmax_reference(logits, TARGET, 2.0, reduction="none")
    torch.testing.assert_close(masked.double(), expected[mask].mean(), rtol=1e-5, atol=0)
    torch.testing.assert_close(hardest.double(), expected.topk(2)[0].sum(), rtol=1e-5, atol=0)


def focal_with_gradient(ce):
    return ((1 - torch.exp(-ce)) ** 2 * ce).mean()


def focal_without_gradient(ce):
    with torch.no_grad():
        pt = (-ce).exp()
    return ((1 - pt) ** 2 * ce).mean()


def focal_detached(ce):
    return ((1 - ce.detach().clone().mul(-1.0).exp()) ** 2 * ce).mean()


def focal_by_expm1(ce):
    return ((-torch.expm1(-ce)) ** 2 * ce).mean()


def focal_by_a_power_of_e(ce):
    return ((1 - torch.e ** (-ce)) ** 2 * ce).mean()


def focal_of_a_list(ce):
    return ((1 - torch.stack([part.neg() for part in ce.unbind()]).exp_()) ** 2 * ce).mean()


def focal_of_flattened(ce):
    return ((1 - torch.exp(input=-ce.view(-1)[:2])) ** 2).mean()


FOCAL = [
    focal_with_gradient,
    focal_without_gradient,
    focal_detached,
    focal_by_expm1,
    focal_by_a_power_of_e,
    focal_of_a_list,
    focal_of_flattened,
]


@pytest.mark.parametrize("focal", FOCAL)
def test_a_focal_loss_that_takes_exp_of_the_loss_for_pt_is_never_corrupted(logits, focal):
    with pytest.raises(LossOverrideError, match=r"pt = exp\(-ce\)"), override_losses(elementwise="apply"):
        focal(F.cross_entropy(logits, TARGET, reduction="none"))
    with pytest.raises(LossOverrideError, match="reduction='none'"), override_losses():
        focal(F.cross_entropy(logits, TARGET, reduction="none"))
    with pytest.warns(UserWarning, match="No loss"), override_losses(elementwise="skip", on_nothing="warn"):
        loss = focal(F.cross_entropy(logits, TARGET, reduction="none"))
    torch.testing.assert_close(loss, focal(F.cross_entropy(logits, TARGET, reduction="none")))


def test_exponentials_of_other_things_may_follow(logits):
    with override_losses(elementwise="apply"):
        loss = F.cross_entropy(logits, TARGET, reduction="none")
        weight = torch.exp(-logits.detach().square().sum(1))
        total = (weight * loss**2).mean()
        assert torch.exp(total) > 1  # a scalar: a perplexity to be logged, no Pt


def test_a_tracked_tensor_is_forgotten_when_it_is_gone(logits):
    with override_losses(elementwise="apply") as override:
        loss = F.cross_entropy(logits, TARGET, reduction="none") * 2
        assert override._mode._tracked
        del loss
        assert not override._mode._tracked


@pytest.mark.parametrize("elementwise", ["error", "apply", "skip"])
def test_torchvisions_focal_loss_is_no_matter_of_doubt(logits, elementwise):
    target = torch.randint(2, (4, 3)).float()
    with override_losses(-1.0, elementwise=elementwise):
        loss = sigmoid_focal_loss(logits, target, alpha=-1, gamma=0.0, reduction="sum")
    with override_losses(-1.0):
        expected = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    torch.testing.assert_close(loss, expected)
