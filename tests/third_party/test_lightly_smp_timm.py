import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy
from torch import nn

from polyloss_lightning import PolyLossOverride
from polyloss_lightning.interception import LossOverrideError

IMAGES = torch.rand(4, 3, 32, 32)


def test_lightly_simclr(check, wrapped, cross_entropy):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), SimCLRProjectionHead(16, 16, 8))
    criterion = NTXentLoss(temperature=0.5)
    module = wrapped(model, lambda model, views: criterion(model(views[0]), model(views[1])))
    check(module, [IMAGES, torch.rand(4, 3, 32, 32)], cross_entropy)


def test_segmentation_models_unet_with_soft_bce(check, wrapped, binary):
    model, criterion = smp.Unet("resnet18", encoder_weights=None, classes=2), smp.losses.SoftBCEWithLogitsLoss()
    module = wrapped(model, lambda model, batch: criterion(model(batch[0]), batch[1]))
    check(module, [IMAGES, torch.randint(2, (4, 2, 32, 32)).float()], binary, elementwise="apply")


def test_segmentation_models_focal_loss_is_refused(first_step, wrapped):
    model, criterion = smp.Unet("resnet18", encoder_weights=None, classes=2), smp.losses.FocalLoss("multilabel")
    module = wrapped(model, lambda model, batch: criterion(model(batch[0]), batch[1]))
    batch = [IMAGES, torch.randint(2, (4, 2, 32, 32)).float()]
    for elementwise in ("error", "apply"):
        with pytest.raises(LossOverrideError, match="none"):
            first_step(module, batch, PolyLossOverride(elementwise=elementwise))


def test_timm_resnet_with_its_binary_cross_entropy(check, wrapped, binary):
    model, criterion = timm.create_model("resnet18", num_classes=4), BinaryCrossEntropy(smoothing=0.1)
    module = wrapped(model, lambda model, batch: criterion(model(batch[0]), batch[1]))
    check(module, [IMAGES, torch.randint(4, (4,))], binary)


def test_timm_loss_written_by_hand_cannot_be_caught_and_is_an_error(first_step, wrapped):
    model, criterion = timm.create_model("resnet18", num_classes=4), LabelSmoothingCrossEntropy()
    module = wrapped(model, lambda model, batch: criterion(model(batch[0]), batch[1]))
    with pytest.raises(LossOverrideError, match="No loss was replaced"):
        first_step(module, [IMAGES, torch.randint(4, (4,))], PolyLossOverride())
