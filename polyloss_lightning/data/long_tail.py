"""Choosing the samples of a classification data set so that its class counts fall exponentially."""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyloss_lightning._checks import as_number


def check_imbalance(imbalance: float) -> None:
    """Raise unless ``imbalance`` is a finite number of at least 1."""
    allowed = "a finite number of at least 1"
    as_number("imbalance", imbalance, allowed, allowed, at_least=1)


def long_tail_counts(available: Sequence[int], imbalance: float) -> list[int]:
    r"""Return the number of samples per class, from the most frequent: :math:`n_r = n_{\max}\,\rho^{-r/(C-1)}`.

    :math:`n_{\max}` is the minimum of ``available``, which every class has. The counts therefore do not depend on
    which classes become rare, and different seeds are comparable. Each count is rounded, and is at least 1. If
    ``imbalance`` exceeds :math:`n_{\max}`, the actual ratio is smaller than ``imbalance``.

    Args:
        available: number of samples of each class.
        imbalance: ratio :math:`\rho` of the most frequent to the rarest class, at least 1 (balanced).

    Returns:
        One count per rank, in descending order.

    Raises:
        ValueError: if ``imbalance`` is not a finite number of at least 1, or a class has no samples.

    Example:
        >>> long_tail_counts([120, 100, 110], imbalance=25)
        [100, 20, 4]
    """
    check_imbalance(imbalance)
    if not available or min(available) < 1:
        raise ValueError(f"every class needs at least 1 sample, got counts {list(available)}")
    most, last = min(available), max(len(available) - 1, 1)
    return [max(1, round(most * imbalance ** (-rank / last))) for rank in range(len(available))]


def long_tail_indices(targets: Tensor | Sequence[int], imbalance: float, seed: int = 0) -> list[int]:
    """Return the indices of the samples to keep so that the class counts are those of :func:`long_tail_counts`.

    The seed determines which classes are rare and which of their samples are kept. torch's global random state is
    neither used nor changed. With the same seed, the samples kept for a higher imbalance are a subset of those kept for
    a lower one.

    Args:
        targets: class index of every sample, ``[n]``.
        imbalance: ratio of the most frequent to the rarest class, at least 1 (balanced).
        seed: seed of the choice.

    Returns:
        Indices into ``targets``, in ascending order.

    Raises:
        TypeError: if ``targets`` are not integers.
        ValueError: if ``targets`` are not one-dimensional or are negative, if a class below the highest one has no
            samples, or if ``imbalance`` is out of range.

    Example:
        >>> targets = [0] * 8 + [1] * 8 + [2] * 8
        >>> kept = long_tail_indices(targets, imbalance=4, seed=0)
        >>> sorted(sum(targets[i] == c for i in kept) for c in range(3))
        [2, 4, 8]
    """
    generator = torch.Generator().manual_seed(seed)
    groups = shuffled_by_class(targets, generator)
    counts = long_tail_counts([len(group) for group in groups], imbalance)
    ranks = torch.randperm(len(groups), generator=generator).tolist()
    kept = torch.cat([group[: counts[rank]] for group, rank in zip(groups, ranks, strict=True)])
    return kept.sort().values.tolist()


def shuffled_by_class(targets: Tensor | Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Return the indices of the samples of each class in random order, for class 0 to the highest in ``targets``."""
    classes = torch.as_tensor(targets).cpu()
    check_class_indices(classes)
    order = torch.randperm(len(classes), generator=generator)
    by_class = order[classes[order].argsort(stable=True)]
    return list(torch.split(by_class, torch.bincount(classes).tolist()))


def check_class_indices(targets: Tensor) -> None:
    """Raise unless ``targets`` are class indices, ``[n]``.

    Raises:
        TypeError: if they are not integers.
        ValueError: if there are none, or they have another shape or are negative.
    """
    if targets.is_floating_point() or targets.is_complex():
        raise TypeError(f"`targets` must be class indices (integers), got dtype {targets.dtype}")
    if targets.dim() != 1 or len(targets) == 0:
        raise ValueError(f"`targets` must have shape (n), with one class index per sample, got {tuple(targets.shape)}")
    if targets.min() < 0:
        raise ValueError(f"`targets` must be class indices of at least 0, got {int(targets.min())}")
