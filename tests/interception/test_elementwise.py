"""Losses of reduction "none": refused, skipped, or replaced."""

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


@pytest.mark.parametrize("elementwise", ["error", "apply", "skip"])
def test_torchvisions_focal_loss_is_no_matter_of_doubt(logits, elementwise):
    target = torch.randint(2, (4, 3)).float()
    with override_losses(-1.0, elementwise=elementwise):
        loss = sigmoid_focal_loss(logits, target, alpha=-1, gamma=0.0, reduction="sum")
    with override_losses(-1.0):
        expected = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    torch.testing.assert_close(loss, expected)
