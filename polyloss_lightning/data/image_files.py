"""Finding and reading image files: one folder for each class."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from polyloss_lightning._checks import listed

# Those that Pillow reads and torchvision's ImageFolder accepts.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ImageFiles(Dataset[Any]):
    """Images in files, with or without targets.

    Args:
        samples: path and target of each image, a class index or one number per label; None if it is not known.
        classes: names of the classes.
        transform: called with the PIL image; None returns it as it is.
        grayscale: read the images with one channel instead of three.

    Raises:
        ValueError: when an image is read, if it is unreadable, with its path.
    """

    def __init__(
        self,
        samples: Sequence[tuple[str, int | Tensor | None]],
        classes: Sequence[str],
        transform: Callable[[Any], Any] | None = None,
        grayscale: bool = False,
    ) -> None:
        self.samples = list(samples)
        self.classes = list(classes)
        self.targets = [target for _, target in samples]
        self.transform = transform
        self.grayscale = grayscale

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        path, target = self.samples[index]
        image = read_image(path, self.grayscale)
        image = image if self.transform is None else self.transform(image)
        return image if target is None else (image, target)


def read_image(path: str, grayscale: bool) -> Any:
    """Return the image in ``path`` as a PIL image with one channel or three.

    Raises:
        ValueError: if it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _scaled(image).convert("L" if grayscale else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error


def _scaled(image: Any) -> Any:
    """Return ``image`` with values up to 255. Pillow's ``convert`` would set all larger values to 255.

    Raises:
        ValueError: if the range of its values is not known.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):  # 16 bits
        return image.convert("I").point(lambda value: value * (1 / 256))
    if image.mode == "F" or (image.mode == "I" and image.getextrema()[1] > 255):
        kind = "floating-point numbers" if image.mode == "F" else "integers of 32 bits"
        raise ValueError(f"its values are {kind}, whose range is not known: convert it to 8 or 16 bits")
    return image


def image_paths(folder: Path) -> list[str]:
    """Return the paths of all images in ``folder`` and below, sorted; hidden files and folders are left out.

    Raises:
        FileNotFoundError: if ``folder`` is not a folder, or contains no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = (name for name in names if not name.startswith("."))
        found += [os.path.join(parent, name) for name in visible if name.lower().endswith(EXTENSIONS)]
    if not found:
        raise FileNotFoundError(f"there is no image in {folder} (of {' '.join(EXTENSIONS)})")
    return sorted(found)


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, sorted; hidden ones are left out."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def labelled_images(folder: Path, classes: Sequence[str]) -> list[tuple[str, int | None]]:
    """Return path and class index of every image in the folders of ``classes``.

    Raises:
        FileNotFoundError: if ``folder`` is not a folder, or there is no image of a class.
        ValueError: if ``folder`` contains the folder of another class.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    present = class_folders(folder)
    missing, unknown = [name for name in classes if name not in present], sorted(set(present) - set(classes))
    if missing:
        raise FileNotFoundError(f"{folder} has no folder of the class {missing[0]!r} (classes: {listed(classes)})")
    if unknown:
        raise ValueError(
            f"{folder} has a folder {unknown[0]!r}, which is not a class of the training part ({listed(classes)})"
        )
    return [(path, index) for index, name in enumerate(classes) for path in image_paths(folder / name)]
