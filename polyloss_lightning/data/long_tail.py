"""The long tail: which samples of a classification data set to keep so that its classes follow an exponential."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def check_imbalance(imbalance: float) -> None:
    """Raise ``ValueError`` unless ``imbalance`` is a finite number of at least 1."""
    if not (math.isfinite(imbalance) and imbalance >= 1):
        raise ValueError(f"`imbalance` must be a finite number of at least 1, got {imbalance!r}")


def long_tail_counts(available: Sequence[int], imbalance: float) -> list[int]:
    r"""Samples a class from the most frequent to the rarest: :math:`n_r = n_{\max}\,\rho^{-r/(C-1)}`.

    :math:`n_{\max}` is what every class has, the least of ``available``, so the counts do not depend on which class
    becomes rare, and seeds stay comparable. Each count is rounded, and at least 1: where ``imbalance`` exceeds
    :math:`n_{\max}`, the tail is flatter than asked for.

    Args:
        available: number of samples of each class.
        imbalance: ratio :math:`\rho` of the most frequent to the rarest class, at least 1 (balanced).

    Returns:
        One count a rank, in falling order.

    Raises:
        ValueError: if ``imbalance`` is not a finite number of at least 1, or a class has no sample.

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
    """Indices of the samples to keep so that the classes follow :func:`long_tail_counts`.

    The seed decides which class is rare and which of its samples stay; torch's global random state is neither read
    nor moved. With one seed, the samples of a higher imbalance are among those of a lower one.

    Args:
        targets: class index of every sample, ``[n]``.
        imbalance: ratio of the most frequent to the rarest class, at least 1 (balanced).
        seed: of the choice.

    Returns:
        Indices into ``targets``, in rising order.

    Raises:
        TypeError: if ``targets`` are not integers.
        ValueError: if ``targets`` are not one-dimensional, negative, or leave out a class below the highest, or if
            ``imbalance`` is out of its range.

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
    """For each class, the indices of its samples in random order; classes are 0 to the highest in ``targets``."""
    classes = torch.as_tensor(targets).cpu()
    if classes.is_floating_point() or classes.is_complex():
        raise TypeError(f"`targets` must be class indices (integers), got dtype {classes.dtype}")
    if classes.dim() != 1 or len(classes) == 0:
        raise ValueError(f"`targets` must have shape (n), one class index a sample, got {tuple(classes.shape)}")
    if classes.min() < 0:
        raise ValueError(f"`targets` must be class indices of at least 0, got {int(classes.min())}")
    order = torch.randperm(len(classes), generator=generator)
    by_class = order[classes[order].argsort(stable=True)]
    return list(torch.split(by_class, torch.bincount(classes).tolist()))
