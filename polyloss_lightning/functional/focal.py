"""Poly-1 softmax focal loss as a pure function."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from polyloss_lightning import polynomial
from polyloss_lightning.evaluation import evaluate
from polyloss_lightning.functional.cross_entropy import check_label_smoothing
from polyloss_lightning.links import softmax_axes, softmax_entries
from polyloss_lightning.reduction import Reduction, check_reduction


def poly1_focal_loss(
    input: Tensor,
    target: Tensor,
    epsilon: float | Sequence[float] = 1.0,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    num_terms: int | None = None,
) -> Tensor:
    r"""Softmax focal loss with the first coefficients of its expansion in :math:`1-P_t` moved by ``epsilon``.

    .. math:: \ell = w_y (1-P_t)^\gamma \Big(-\log P_t + \sum_j \epsilon_j (1-P_t)^j\Big)

    At gamma 0 it is :func:`~polyloss_lightning.functional.poly1_cross_entropy`, at gamma and epsilon 0
    :func:`torch.nn.functional.cross_entropy`. For probabilities ``q`` (soft labels, mixup, smoothing) it is the
    ``q``-weighted sum of the same over classes.

    Args:
        input: logits, shape ``(C)``, ``(N, C)`` or ``(N, C, d1, ..., dk)``. Half precision is computed in float32.
        target: class indices, shape ``()``, ``(N)`` or ``(N, d1, ..., dk)``, or probabilities shaped as ``input``.
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        gamma: focusing exponent, at least 0; fractions too have finite gradients.
        weight: class weights, shape ``(C)``; they multiply the whole polynomial. This is where RetinaNet's alpha goes,
            one for each class.
        ignore_index: class index whose samples count for nothing; for class indices only.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, with the denominators of cross-entropy: the total weight of the
            samples that count for class indices, the number of samples for probabilities.
        label_smoothing: share of each target spread evenly over the classes, in [0, 1].
        num_terms: keep only the first terms of the series (the paper's L_Drop); None keeps all.

    Shape:
        Output: a scalar, or for ``"none"`` the shape of ``input`` without the class axis.

    Raises:
        TypeError: if ``epsilon`` or ``gamma`` is not numeric, or a dtype is not one that torch takes.
        ValueError: if ``epsilon`` is not finite, ``gamma`` negative or not finite, or shapes or options do not fit.

    Example:
        >>> import torch
        >>> input, target = torch.tensor([[4.0, 2.0, 1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1])
        >>> poly1_focal_loss(input, target, epsilon=1.0, reduction="none")
        tensor([0.0080, 0.1752])

    Reference:
        Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022;
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """
    epsilon = polynomial.as_epsilon(epsilon)
    polynomial.check_num_terms(num_terms, epsilon)
    polynomial.check_gamma(gamma)
    check_reduction(reduction)
    check_label_smoothing(label_smoothing)
    link = partial(softmax_entries, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing)
    axes = partial(softmax_axes, **link.keywords)
    return evaluate(link, input, target, epsilon, reduction, gamma=gamma, num_terms=num_terms, axes=axes)
