"""The part that all data modules of image files share: how images are prepared, in every run with a checkpoint."""

from typing import Any, get_args

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from polyloss_lightning._checks import check_choice, check_integer
from polyloss_lightning.data.image_files import ImageFiles
from polyloss_lightning.data.image_transforms import (
    Augment,
    check_torchvision,
    evaluation_transform,
    training_transform,
)


class PreparedImages(LightningDataModule):
    """Base of the data modules that read image files.

    A checkpoint contains the names of the classes and how images are prepared. If these differ when it is loaded,
    other names (or another order) are an error, and ``image_size`` and ``grayscale`` are taken from the checkpoint,
    with a warning.
    """

    class_names: Any  # list[str]; LongTailDataModule declares it as a property
    image_size: int
    grayscale: bool
    _files: dict[str, ImageFiles]

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
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the names of the classes, and prepare images as in the run that saved the checkpoint."""
        saved = state_dict["class_names"]
        if saved != self.class_names:
            same = sorted(saved) == sorted(self.class_names)
            raise ValueError(
                f"the classes of the checkpoint are {', '.join(saved)}, but those of the data are "
                f"{', '.join(self.class_names)}"
                + (": pass `class_names` in the order of the checkpoint" if same else "")
            )
        for name in ("image_size", "grayscale"):
            value = state_dict[name]
            if value != getattr(self, name):
                rank_zero_warn(f"`{name}` is {value} as in the checkpoint, and not {getattr(self, name)}")
                setattr(self, name, value)
        self._set_transforms()

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


def _composed(transform: nn.Module | list[nn.Module] | None) -> nn.Module | None:
    return nn.Sequential(*transform) if isinstance(transform, list) else transform
