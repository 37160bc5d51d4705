import pytest
import torch
from torchgeo.trainers import ClassificationTask, ObjectDetectionTask, SemanticSegmentationTask

from polyloss_lightning import PolyLossOverride
from polyloss_lightning.interception import LossOverrideError

IMAGES = torch.rand(4, 3, 32, 32)


def test_classification_task_with_class_weights(check, cross_entropy):
    task = ClassificationTask(model="resnet18", num_classes=4, class_weights=[0.5, 1.0, 2.0, 4.0])
    check(task, {"image": IMAGES, "label": torch.randint(4, (4,))}, cross_entropy)


def test_multilabel_classification_task(check, binary):
    task = ClassificationTask(model="resnet18", task="multilabel", num_labels=4, loss="bce")
    check(task, {"image": IMAGES, "label": torch.randint(2, (4, 4))}, binary)


def test_semantic_segmentation_task_with_an_ignored_class(check, cross_entropy):
    task = SemanticSegmentationTask(model="unet", backbone="resnet18", num_classes=4, ignore_index=0)
    check(task, {"image": IMAGES, "mask": torch.randint(4, (4, 32, 32))}, cross_entropy)


def test_object_detection_task(check, cross_entropy):
    task = ObjectDetectionTask(model="faster-rcnn", backbone="resnet18", num_classes=4)
    boxes = [torch.tensor([[4.0, 4.0, 20.0, 28.0]])] * 4
    batch = {"image": IMAGES, "bbox_xyxy": boxes, "label": [torch.tensor([1])] * 4}
    check(task, batch, cross_entropy, scope=["model.roi_heads"])


@pytest.mark.parametrize(("elementwise", "message"), [("error", "reduction='none'"), ("apply", r"pt = exp\(-ce\)")])
def test_its_focal_loss_which_takes_exp_for_pt_is_refused(first_step, elementwise, message):
    task = ClassificationTask(model="resnet18", num_classes=4, loss="focal")
    batch = {"image": IMAGES, "label": torch.randint(4, (4,))}
    with pytest.raises(LossOverrideError, match=message):
        first_step(task, batch, PolyLossOverride(elementwise=elementwise))
