"""The part that all data modules of image files share: how images are prepared, in every run with a checkpoint."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, get_args

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from polyloss_lightning._checks import check_choice, check_choices, check_integer, listed
from polyloss_lightning.data.image_files import ImageFiles
from polyloss_lightning.data.image_transforms import (
    Augment,
    check_torchvision,
    evaluation_transform,
    training_transform,
)
from polyloss_lightning.data.split import warn_of_another_split


class PreparedImages(LightningDataModule):
    """Base of the data modules that read image files.

    A checkpoint contains the names of the classes and how images are prepared. If these differ when it is loaded,
    other names (or another order) are an error, and ``image_size`` and ``grayscale`` are taken from the checkpoint,
    with a warning. It does not contain the split and transforms of your own; a warning reports if these differ.
    """

    class_names: Any  # list[str]; LongTailDataModule declares it as a property
    image_size: int
    grayscale: bool
    _files: dict[str, ImageFiles]
    _split_by: dict[str, float] | None = None  # what determines the parts, if one set of images is split into them

    @property
    def in_channels(self) -> int:
        """Number of channels of the images."""
        return 1 if self.grayscale else 3

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the classes, and how images are prepared."""
        return {
            "version": 1,
            "class_names": self.class_names,
            "image_size": self.image_size,
            "grayscale": self.grayscale,
            "own_transform": self.transform is not None,
            "split": self._split_by,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the names of the classes, and prepare images as in the run that saved the checkpoint."""
        saved = state_dict["class_names"]
        if saved != self.class_names:
            first, own = next(pair for pair in zip_longest(saved, self.class_names) if pair[0] != pair[1])
            same = sorted(saved) == sorted(self.class_names)
            raise ValueError(
                f"the classes of the checkpoint are {listed(saved)}, but those of the data are "
                f"{listed(self.class_names)} (the first that differ are {first} and {own})"
                + (": pass `class_names` in the order of the checkpoint" if same else "")
            )
        for name in ("image_size", "grayscale"):
            value = state_dict[name]
            if value != getattr(self, name):
                rank_zero_warn(f"`{name}` is {value} as in the checkpoint, and not {getattr(self, name)}")
                setattr(self, name, value)
        self._warn_of_differences(bool(state_dict["own_transform"]), state_dict["split"])
        self._set_transforms()

    def _warn_of_differences(self, own_transform: bool, split: dict[str, float] | None) -> None:
        """Warn of what a checkpoint cannot determine."""
        if own_transform != (self.transform is not None):
            rank_zero_warn(
                "the images of the checkpoint were prepared "
                + ("with a `transform` of your own: pass it again" if own_transform else "without your `transform`")
            )
        if split and self._split_by:
            warn_of_another_split(split, self._split_by)

    def _keep_split(self, seed: int, val_fraction: float, test_fraction: float) -> None:
        self._split_by = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction}

    def _set_preparation(
        self,
        image_size: int,
        grayscale: bool,
        augment: Augment,
        train_transform: nn.Module | list[nn.Module] | None,
        transform: nn.Module | list[nn.Module] | None,
    ) -> None:
        """Check and keep these arguments of the constructor."""
        check_integer("image_size", image_size, "an integer of at least 1", at_least=1)
        check_choice("augment", augment, get_args(Augment))
        check_torchvision()
        self.image_size, self.grayscale, self.augment = image_size, grayscale, augment
        self.train_transform, self.transform = _composed(train_transform), _composed(transform)

    def _set_transforms(self) -> None:
        """Give each part its transform."""
        for part, files in self._files.items():
            files.grayscale = self.grayscale
            if part == "train":
                preset = training_transform(self.image_size, self.grayscale, self.augment)
                files.transform = self.train_transform or preset
            else:
                files.transform = self.transform or evaluation_transform(self.image_size, self.grayscale)


def check_class_names(names: Sequence[str]) -> list[str]:
    """Return ``names`` as a list.

    Raises:
        TypeError: if it is not a sequence of strings.
        ValueError: if there are fewer than two names, or two equal ones.
    """
    checked = list(check_choices("class_names", names))
    if len(checked) < 2 or len(set(checked)) < len(checked):
        raise ValueError(f"`class_names` must contain at least two names, each of them once, got {checked}")
    return checked


def _composed(transform: nn.Module | list[nn.Module] | None) -> nn.Module | None:
    return nn.Sequential(*transform) if isinstance(transform, list) else transform
