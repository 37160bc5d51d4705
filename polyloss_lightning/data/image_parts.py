"""Finding the training, validation and test part of a folder of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch

from polyloss_lightning.data.image_files import class_folders, labelled_images
from polyloss_lightning.data.long_tail import shuffled_by_class

_OTHER_PARTS = {"val", "valid", "validation", "test"}
_NOT_CLASSES = {"train", "training", "testing", *_OTHER_PARTS}  # in any case, if they contain folders
Samples: TypeAlias = list[tuple[str, int | None]]


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Raise ``ValueError`` unless both fractions leave something for training, and there is a validation part."""
    if not (0 < val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
        raise ValueError(
            "`val_fraction` must be above 0, `test_fraction` at least 0, and their sum below 1, got "
            f"{val_fraction} and {test_fraction}"
        )


def image_parts(
    root: Path, class_names: Sequence[str] | None, val_fraction: float, test_fraction: float, seed: int
) -> tuple[list[str], dict[str, Samples], bool]:
    """Return the names of the classes, the samples of each part, and whether the parts come from a split at random.

    Args:
        root: folder with the folders ``train``, ``val`` and perhaps ``test``, or with the folders of the classes.
        class_names: names of the classes; None takes the names of the folders, sorted.
        val_fraction: part of each class for validation, if ``root`` has the folders of the classes.
        test_fraction: part of each class for the test, likewise.
        seed: seed of the split.

    Raises:
        FileNotFoundError: if a folder is missing or contains no image, or a class is missing in a part.
        ValueError: if there are fewer than two classes, a class has too few images to split, or the folders of the
            parts have other names.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"`root` must be a folder of images, and there is no folder {root}")
    folders = class_folders(root)
    # A class may be called train. Its folder contains no folders then, and there is no other part beside it.
    has_parts = "train" in folders and bool(class_folders(root / "train") or _OTHER_PARTS.intersection(folders))
    other_names = [name for name in folders if name.lower() in _NOT_CLASSES and class_folders(root / name)]
    if folders and other_names == folders and not has_parts:
        raise ValueError(
            f"{root} has the folders {', '.join(folders)}, which contain the folders of the classes: rename them to "
            "train, val and test"
        )
    classes = list(class_names or class_folders(root / "train" if has_parts else root))
    where = root / "train" if has_parts else root
    if not classes:
        raise FileNotFoundError(
            f"there is no folder in {where}: it must contain one folder of images for each class, or `root` must "
            "contain the folders train, val and test"
        )
    if len(classes) == 1:
        raise ValueError(f"there must be at least two classes, but {where} has one folder only: {classes[0]!r}")
    if has_parts:
        present = [part for part in ("train", "val", "test") if part in folders]
        parts: dict[str, Samples] = {part: labelled_images(root / part, classes) for part in present}
        if "val" not in parts:
            raise FileNotFoundError(
                f"{root} has a folder train, but no folder val: add it, or pass {root / 'train'} as `root` to split it"
            )
        return classes, parts, False
    return classes, _split(labelled_images(root, classes), classes, val_fraction, test_fraction, seed), True


def _split(
    samples: Samples, classes: Sequence[str], val_fraction: float, test_fraction: float, seed: int
) -> dict[str, Samples]:
    """Split each class by the fractions, with at least one image of each class in each part."""
    fractions = {"val": val_fraction, **({"test": test_fraction} if test_fraction else {})}
    targets = torch.tensor([target for _, target in samples])
    indices: dict[str, list[int]] = {"train": [], **{part: [] for part in fractions}}
    for name, group in zip(classes, shuffled_by_class(targets, torch.Generator().manual_seed(seed)), strict=True):
        if len(group) <= len(fractions):
            raise ValueError(
                f"the class {name!r} has too few images to split: it needs at least {len(fractions) + 1} (one each for "
                f"{', '.join(indices)}), got {len(group)}"
            )
        rest = group.tolist()
        for part, fraction in fractions.items():
            # Leave at least one image for training.
            number = min(max(1, round(fraction * len(group))), len(rest) - 1)
            indices[part] += rest[:number]
            rest = rest[number:]
        indices["train"] += rest
    return {part: [samples[index] for index in sorted(chosen)] for part, chosen in indices.items()}
