import pytest
import torch
from torchvision.models import detection

IMAGES = [torch.rand(3, 64, 64) for _ in range(2)]
TARGETS = [
    {"boxes": torch.tensor([[4.0, 4.0, 30.0, 40.0], [20.0, 10.0, 60.0, 60.0]]), "labels": torch.tensor([1, 2])},
    {"boxes": torch.tensor([[10.0, 10.0, 50.0, 50.0]]), "labels": torch.tensor([3])},
]
OPTIONS = {"weights": None, "weights_backbone": None, "num_classes": 4}


def loss_of(model, batch):
    return sum(model(*batch).values())


def functions(override, *, replaced=True):
    return {site.function for site in override.call_sites if site.replaced is replaced}


def test_faster_rcnn_roi_heads_and_not_its_rpn(check, wrapped, cross_entropy):
    model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(**OPTIONS, min_size=64, max_size=64)
    override = check(wrapped(model, loss_of), (IMAGES, TARGETS), cross_entropy, scope=["model.roi_heads"])
    assert functions(override) == {"cross_entropy"}
    assert [(site.function, site.reason) for site in override.call_sites if not site.replaced] == [
        ("binary_cross_entropy_with_logits", "outside of scope")
    ]


def test_faster_rcnn_as_a_whole(check, wrapped, cross_entropy, binary):
    model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(**OPTIONS, min_size=64, max_size=64)
    override = check(wrapped(model, loss_of), (IMAGES, TARGETS), cross_entropy, binary)
    assert functions(override) == {"cross_entropy", "binary_cross_entropy_with_logits"}


def test_mask_rcnn(check, wrapped, cross_entropy, binary):
    model = detection.maskrcnn_resnet50_fpn(**OPTIONS, min_size=64, max_size=64)
    targets = [
        {**target, "masks": torch.randint(2, (len(target["labels"]), 64, 64)).to(torch.uint8)} for target in TARGETS
    ]
    check(wrapped(model, loss_of), (IMAGES, targets), cross_entropy, binary)


def test_retinanet_with_the_focal_loss_that_it_imports_by_name(check, wrapped, focal):
    model = detection.retinanet_resnet50_fpn(**OPTIONS, min_size=64, max_size=64)
    patch = (detection.retinanet, "sigmoid_focal_loss", focal)
    override = check(wrapped(model, loss_of), (IMAGES, TARGETS), patch)
    assert functions(override) == {"sigmoid_focal_loss"}


def test_fcos_focal_loss_and_not_its_centerness(check, wrapped, focal):
    model = detection.fcos_resnet50_fpn(**OPTIONS, min_size=64, max_size=64)
    patch = (detection.fcos, "sigmoid_focal_loss", focal)
    override = check(wrapped(model, loss_of), (IMAGES, TARGETS), patch, losses=["sigmoid_focal_loss"])
    assert functions(override) == {"sigmoid_focal_loss"}
    assert functions(override, replaced=False) == {"binary_cross_entropy_with_logits"}


def test_ssd_whose_hard_negative_mining_follows_an_elementwise_loss(check, wrapped, first_step, cross_entropy):
    model = wrapped(detection.ssdlite320_mobilenet_v3_large(**OPTIONS), loss_of)
    images = [torch.rand(3, 320, 320) for _ in IMAGES]
    targets = [{**target, "boxes": target["boxes"] * 5} for target in TARGETS]
    check(model, (images, targets), cross_entropy, elementwise="apply")


def test_ssd_is_refused_unless_the_user_says_what_is_meant(wrapped, first_step):
    from polyloss_lightning import PolyLossOverride
    from polyloss_lightning.interception import LossOverrideError

    model = wrapped(detection.ssdlite320_mobilenet_v3_large(**OPTIONS), loss_of)
    with pytest.raises(LossOverrideError, match=r"ssd.py:\d+ calls cross_entropy with reduction='none'"):
        first_step(model, ([torch.rand(3, 320, 320)] * 2, TARGETS), PolyLossOverride())
