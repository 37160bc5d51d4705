import torch
from torch import nn
from torch_uncertainty.models.classification import resnet
from torch_uncertainty.routines import ClassificationRoutine, SegmentationRoutine

IMAGES = torch.rand(4, 3, 32, 32)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.01)


def test_classification_routine(check, cross_entropy):
    model = resnet(in_channels=3, num_classes=4, arch=18, style="cifar")
    routine = ClassificationRoutine(model, 4, nn.CrossEntropyLoss(label_smoothing=0.1), optim_recipe=sgd(model))
    check(routine, (IMAGES, torch.randint(4, (4,))), cross_entropy)


def test_classification_routine_with_mixup(check, cross_entropy):
    model = resnet(in_channels=3, num_classes=4, arch=18, style="cifar")
    mixup = {"mixtype": "mixup", "mixup_alpha": 1.0}
    routine = ClassificationRoutine(model, 4, nn.CrossEntropyLoss(), optim_recipe=sgd(model), mixup_params=mixup)
    check(routine, (IMAGES, torch.randint(4, (4,))), cross_entropy)


def test_segmentation_routine(check, cross_entropy):
    model = nn.Conv2d(3, 4, 3, padding=1)
    routine = SegmentationRoutine(model, 4, nn.CrossEntropyLoss(ignore_index=1), optim_recipe=sgd(model))
    check(routine, (IMAGES, torch.randint(4, (4, 32, 32))), cross_entropy)
