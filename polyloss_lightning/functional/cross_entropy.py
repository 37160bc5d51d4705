"""Poly-1 cross-entropy as a pure function."""

from collections.abc import Sequence
from functools import partial
from numbers import Real

from torch import Tensor

from polyloss_lightning import polynomial
from polyloss_lightning.evaluation import evaluate
from polyloss_lightning.links import softmax_axes, softmax_entries
from polyloss_lightning.reduction import Reduction, check_reduction


def poly1_cross_entropy(
    input: Tensor,
    target: Tensor,
    epsilon: float | Sequence[float] = 1.0,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    num_terms: int | None = None,
) -> Tensor:
    r"""Cross-entropy with the first coefficients of its expansion in :math:`1-P_t` moved by ``epsilon``.

    .. math:: \ell = w_y \Big(-\log P_t + \sum_j \epsilon_j (1-P_t)^j\Big)

    At epsilon 0 it is :func:`torch.nn.functional.cross_entropy`, in value, gradient, shape and dtype. For
    probabilities ``q`` (soft labels, mixup, smoothing) it is the ``q``-weighted sum of the same over classes.

    Args:
        input: logits, shape ``(C)``, ``(N, C)`` or ``(N, C, d1, ..., dk)``. Half precision is computed in float32.
        target: class indices, shape ``()``, ``(N)`` or ``(N, d1, ..., dk)``, or probabilities shaped as ``input``.
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        weight: class weights, shape ``(C)``; they multiply the whole polynomial, not the cross-entropy alone.
        ignore_index: class index whose samples count for nothing; for class indices only.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. ``"mean"`` divides by the total weight of the samples that
            count for class indices, and by the number of samples for probabilities, so turning on mixup changes the
            scale of a class-weighted loss (as in torch).
        label_smoothing: share of each target spread evenly over the classes, in [0, 1].
        num_terms: keep only the first terms of the series (the paper's L_Drop); None keeps all.

    Shape:
        Output: a scalar, or for ``"none"`` the shape of ``input`` without the class axis.

    Raises:
        TypeError: if ``epsilon`` is not numeric, or a dtype is not one that torch takes.
        ValueError: if ``epsilon`` is not finite, or shapes or options do not fit.

    Example:
        >>> import torch
        >>> input, target = torch.tensor([[4.0, 2.0, 1.0], [0.0, 5.0, 1.0]]), torch.tensor([0, 1])
        >>> poly1_cross_entropy(input, target, epsilon=2.0, reduction="none")
        tensor([0.4823, 0.0736])

    Reference:
        Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022.
    """
    epsilon = polynomial.as_epsilon(epsilon)
    polynomial.check_num_terms(num_terms, epsilon)
    check_reduction(reduction)
    check_label_smoothing(label_smoothing)
    link = partial(softmax_entries, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing)
    axes = partial(softmax_axes, **link.keywords)
    return evaluate(link, input, target, epsilon, reduction, num_terms=num_terms, axes=axes)


def check_label_smoothing(label_smoothing: float) -> None:
    """Raise unless ``label_smoothing`` is a number in [0, 1]."""
    given: object = label_smoothing
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(f"`label_smoothing` must be a number in [0, 1], got {given!r} ({type(given).__name__})")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"`label_smoothing` must be in [0, 1], got {label_smoothing}")
