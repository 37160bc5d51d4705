"""The targets of torchvision's MixUp and CutMix, and of its own losses, in every loss that takes probabilities."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss
from torchvision.transforms import v2

import polyloss_lightning as poly

CLASSES = 5


@pytest.fixture(params=[v2.MixUp, v2.CutMix])
def mixed(request):
    images, labels = torch.rand(8, 3, 6, 6), torch.randint(CLASSES, (8,))
    _, target = request.param(num_classes=CLASSES, alpha=1.0)(images, labels)
    assert target.shape == (8, CLASSES)
    return 3 * torch.randn(8, CLASSES), target


REFERENCES = {
    "cross_entropy": (poly.Poly1CrossEntropyLoss, {}, F.cross_entropy),
    "cross_entropy-smoothed": (
        poly.Poly1CrossEntropyLoss,
        {"label_smoothing": 0.1},
        lambda x, q: F.cross_entropy(x, q, label_smoothing=0.1),
    ),
    "focal": (
        poly.Poly1FocalLoss,
        {"gamma": 2.0},
        lambda x, q: -(q * (1 - x.softmax(1)) ** 2 * x.log_softmax(1)).sum(1).mean(),
    ),
    "binary": (poly.Poly1BCEWithLogitsLoss, {}, F.binary_cross_entropy_with_logits),
    "sigmoid_focal": (poly.Poly1SigmoidFocalLoss, {}, lambda x, q: sigmoid_focal_loss(x, q, reduction="mean")),
}


@pytest.mark.parametrize(("module", "options", "reference"), REFERENCES.values(), ids=REFERENCES)
def test_epsilon_zero_is_the_loss_it_generalises(mixed, module, options, reference):
    torch.testing.assert_close(module(0.0, **options)(*mixed), reference(*mixed))


@pytest.mark.parametrize(("module", "options", "reference"), REFERENCES.values(), ids=REFERENCES)
def test_the_correction_is_mixed_like_the_loss(mixed, module, options, reference):
    input, target = mixed
    hard = target.new_tensor([[1, 0, 0, 0, 0], [0, 0, 1, 0, 0]])
    share = 0.3
    blended = share * hard[:1] + (1 - share) * hard[1:]
    loss = module(2.0, **options, **({"gamma": 0.0} if module is poly.Poly1SigmoidFocalLoss else {}))
    if module is poly.Poly1SigmoidFocalLoss:
        loss.alpha = -1.0  # alpha and gamma act on the blended target, not on its parts
    parts = share * loss(input[:1], hard[:1]) + (1 - share) * loss(input[:1], hard[1:])
    torch.testing.assert_close(loss(input[:1], blended), parts)
