"""Presets of torchvision's transforms (v2) for training and evaluation."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.utils.data import default_collate

Augment: TypeAlias = Literal["none", "light", "randaugment", "trivialaugment"]

# Mean and standard deviation of ImageNet, with which torchvision's pretrained networks were trained.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GRAY_MEAN, _GRAY_STD = (0.449,), (0.226,)


def check_torchvision() -> None:
    """Raise ``ModuleNotFoundError`` if torchvision is missing; the message names the extra to install."""
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'images need torchvision: pip install "polyloss-lightning[vision]"', name=error.name
        ) from error


def evaluation_transform(image_size: int, grayscale: bool) -> nn.Module:
    """Return a transform that resizes the shorter side, crops the centre, and normalizes."""
    from torchvision.transforms import v2

    module: nn.Module = v2.Compose(
        [v2.Resize(image_size, antialias=True), v2.CenterCrop(image_size), *_to_tensor(grayscale)]
    )
    return module


def training_transform(image_size: int, grayscale: bool, augment: Augment) -> nn.Module:
    """Return the transform of the evaluation, with the augmentation before it.

    ``light`` crops a random square of 80 to 100 percent of the area and mirrors half of the images. ``randaugment`` and
    ``trivialaugment`` add torchvision's ``RandAugment`` and ``TrivialAugmentWide`` to it.
    """
    from torchvision.transforms import v2

    if augment == "none":
        return evaluation_transform(image_size, grayscale)
    policy = {
        "light": [],
        "randaugment": [v2.RandAugment()],
        "trivialaugment": [v2.TrivialAugmentWide()],
    }[augment]
    crop = v2.RandomResizedCrop(image_size, scale=(0.8, 1.0), ratio=(0.9, 1.1), antialias=True)
    module: nn.Module = v2.Compose([crop, v2.RandomHorizontalFlip(), *policy, *_to_tensor(grayscale)])
    return module


def mixing_collate(mixup: float, cutmix: float, num_classes: int) -> Callable[[Any], Any] | None:
    """Return a collate function that mixes the images of a batch, or None if both alphas are 0."""
    from torchvision.transforms import v2

    kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
    mixers = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha > 0]
    if not mixers:
        return None
    return MixingCollate(v2.RandomChoice(mixers))


class MixingCollate:
    """Collates samples, then mixes the images and the targets of the batch.

    Args:
        mix: called with images and class indices; returns mixed images and probabilities.
    """

    def __init__(self, mix: Callable[..., Any]) -> None:
        self.mix = mix

    def __call__(self, samples: list[Any]) -> Any:
        """Return the mixed images and targets of ``samples``."""
        return self.mix(*default_collate(samples))


def _to_tensor(grayscale: bool) -> list[Any]:
    from torchvision.transforms import v2

    mean, std = (_GRAY_MEAN, _GRAY_STD) if grayscale else (_MEAN, _STD)
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
