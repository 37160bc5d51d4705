"""The figure of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyloss_lightning.plotting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

# Up to 20 classes have their counts in the cells; up to 100 have their names on the axes.
_COUNTED, _NAMED = 20, 100


def confusion_matrix_figure(
    matrix: Tensor | Sequence[Sequence[float]], class_names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Draw a confusion matrix: one row for each true class, coloured by the share of its samples.

    The cells show the counts if there are at most 20 classes. A class without samples is a grey row. Names longer than
    16 characters are shortened; above 100 classes the axes show indices.

    Args:
        matrix: number of samples of true class i that were predicted as class j, as computed by
            :class:`torchmetrics.classification.MulticlassConfusionMatrix`.
        class_names: one name for each class; None uses the indices.
        title: title of the figure; by default the share of samples on the diagonal.

    Shape:
        - matrix: (C, C)

    Raises:
        ValueError: if ``matrix`` is not square, is empty or has an entry that is negative or not finite, or if
            ``class_names`` does not have one entry for each class.
        ModuleNotFoundError: if matplotlib is missing.

    Example:
        >>> confusion_matrix_figure([[8, 2], [1, 9]], ["cat", "dog"]).get_suptitle()
        'Confusion matrix, 85.0 % of 20 samples on the diagonal'
    """
    counts = _checked(matrix)
    number = len(counts)
    names = [str(index) for index in range(number)] if class_names is None else list(map(str, class_names))
    if len(names) != number:
        raise ValueError(f"`class_names` must have one entry for each of the {number} classes, got {len(names)}")
    percent = 100.0 * counts / counts.sum(1, keepdim=True)  # NaN for a class without samples
    side = 3.2 + (0.36 * number if number <= _COUNTED else 0.085 * min(number, _NAMED) + 0.5)
    figure = style.new_figure(size=(side + 1.0, side))
    from matplotlib.colors import PowerNorm

    (axes,) = figure.axes
    axes.set_facecolor("#d0d0d0")
    norm = PowerNorm(0.5, 0.0, 100.0)  # the square root, because most mistakes are a few percent of a class
    figure.set_layout_engine("compressed")  # for axes of a fixed aspect
    image = axes.imshow(percent.numpy(), cmap="Blues", norm=norm)
    figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8, fraction=0.05, aspect=30)
    if number <= _COUNTED:
        _write_counts(axes, counts, norm)
    if number <= _NAMED:
        size = 9.0 if number <= _COUNTED else max(5.0, 240.0 / number)
        labels = [style.short_name(name) for name in names]
        turned = max(map(len, labels)) > 2
        axes.set_xticks(range(number), labels, rotation=90 if turned else 0, fontsize=size)
        axes.set_yticks(range(number), labels, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.suptitle(title or _summary(counts), fontsize="medium")
    return figure


def _checked(matrix: Tensor | Sequence[Sequence[float]]) -> Tensor:
    try:
        counts = torch.as_tensor(matrix).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`matrix` must have shape (C, C): {error}") from error
    if counts.dim() != 2 or counts.shape[0] != counts.shape[1] or not len(counts):
        raise ValueError(f"`matrix` must have shape (C, C), one row and one column per class, got {list(counts.shape)}")
    if not bool((counts.isfinite() & (counts >= 0)).all()):
        raise ValueError("`matrix` must contain finite counts of at least 0")
    return counts


def _summary(counts: Tensor) -> str:
    total = counts.sum().item()
    if not total:
        return "Confusion matrix"
    return f"Confusion matrix, {100.0 * counts.trace().item() / total:.1f} % of {total:,.0f} samples on the diagonal"


def _write_counts(axes: Axes, counts: Tensor, norm: Normalize) -> None:
    from matplotlib.ticker import EngFormatter

    short = EngFormatter(places=0, sep="")  # 250000 is 250k
    for row, line in enumerate(counts.tolist()):
        for column, count in enumerate(line):
            if count:
                text = short(count) if count >= 1e5 else f"{count:.5g}"
                dark = norm(100.0 * count / sum(line)) > 0.55
                # A cell is 0.36 inches wide, room for three characters of this size.
                size = min(9.0, 30.0 / len(text))
                axes.text(column, row, text, ha="center", va="center", size=size, color="white" if dark else "black")
