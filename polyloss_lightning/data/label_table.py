"""Reading the labels of images from a CSV file."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeAlias

from polyloss_lightning._checks import listed

SEPARATOR = "|"
_Rows: TypeAlias = list[tuple[int, list[str]]]


class LabelTable(NamedTuple):
    """The labels of images.

    Attributes:
        names: names of the labels.
        rows: path of each image, and for each label whether the image has it.
    """

    names: list[str]
    rows: list[tuple[str, list[bool]]]


def read_labels(path: Path, root: Path, names: Sequence[str] | None = None) -> LabelTable:
    """Read a table with one row per image.

    The first column is ``file``. Either every other column is a label, with 0 and 1 as values, or the only other column
    is ``labels``, with the names of the image's labels separated by ``|``; it may be empty.

    Args:
        path: the CSV file.
        root: folder to which relative paths of images refer.
        names: the labels that are known, in their order; None takes them from the file.

    Raises:
        FileNotFoundError: if there is no such file, or an image is missing; with the number of the line.
        ValueError: if the file is not such a table, or an image is in it twice; with the number of the line.
    """
    header, rows = _cells(path)
    known, values = (_listed if header[1:] == ["labels"] else _columns)(path, header, rows, names)
    if len(known) < 2:
        raise ValueError(f"there must be at least two labels, but {path} has {', '.join(known) or 'none'}")
    return LabelTable(known, list(zip(_images(path, rows, root), values, strict=True)))


def _cells(path: Path) -> tuple[list[str], _Rows]:
    """Return the header, and the number of the line and the cells of every other row."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = [cell.strip() for cell in next(reader, [])]
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if header[:1] != ["file"] or len(header) < 2:
        _refuse(path, 1, f"the header must be `file` and the labels, or `file,labels`, got {','.join(header)!r}")
    if len(set(header)) < len(header) or not all(header):
        _refuse(path, 1, f"every column must have a name that no other column has, got {','.join(header)!r}")
    if not rows:
        raise ValueError(f"{path} has no row below its header")
    for line, cells in rows:
        if len(cells) != len(header):
            _refuse(path, line, f"it has {len(cells)} columns, and the header has {len(header)}")
    return header, rows


def _listed(
    path: Path, header: list[str], rows: _Rows, names: Sequence[str] | None
) -> tuple[list[str], list[list[bool]]]:
    """Return the labels and their values for the form ``file,labels``."""
    labels = [(line, [part.strip() for part in cells[1].split(SEPARATOR) if part.strip()]) for line, cells in rows]
    known = sorted({label for _, given in labels for label in given}) if names is None else list(names)
    for line, given in labels:
        for label in given:
            if label not in known:
                _refuse(path, line, f"the label {label!r} is not one of {listed(known)}")
    return known, [[name in given for name in known] for _, given in labels]


def _columns(
    path: Path, header: list[str], rows: _Rows, names: Sequence[str] | None
) -> tuple[list[str], list[list[bool]]]:
    """Return the labels and their values for the form with one column per label."""
    own = header[1:]
    known = own if names is None else list(names)
    if set(known) != set(own):
        _refuse(path, 1, f"the labels are {listed(own)}, but `class_names` or the training part has {listed(known)}")
    places = [header.index(name) for name in known]  # the columns may have another order
    return known, [[_bit(path, line, header[k], cells[k]) for k in places] for line, cells in rows]


def _bit(path: Path, line: int, name: str, value: str) -> bool:
    if value not in ("0", "1"):
        _refuse(path, line, f"the value of {name!r} must be 0 or 1, got {value!r}")
    return value == "1"


def _images(path: Path, rows: _Rows, root: Path) -> list[str]:
    """Return the path of the image in each row."""
    first: dict[str, int] = {}  # its line, by the normalized path: 1.png and ./1.png are the same image
    images = []
    for line, (file, *_) in rows:
        image = root / file
        if not file or not image.is_file():
            problem = f"there is no image {image}" if file else "`file` is empty"
            raise FileNotFoundError(f"{path}, line {line}: {problem}")
        earlier = first.setdefault(os.path.normpath(image), line)
        if earlier != line:
            # A split at random would put the same image into several parts.
            _refuse(path, line, f"{file!r} is already in line {earlier}; put all labels of an image into one row")
        images.append(str(image))
    return images


def _refuse(path: Path, line: int, problem: str) -> NoReturn:
    raise ValueError(f"{path}, line {line}: {problem}")
