"""Poly-1 sigmoid focal loss as a pure function."""

from collections.abc import Sequence
from functools import partial
from numbers import Real

from torch import Tensor

from polyloss_lightning import polynomial
from polyloss_lightning.evaluation import evaluate
from polyloss_lightning.links import TargetFormat, sigmoid_axes, sigmoid_focal_entries
from polyloss_lightning.links.sigmoid import check_target_format
from polyloss_lightning.reduction import Reduction, check_reduction


def poly1_sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    epsilon: float | Sequence[float] = 1.0,
    *,
    alpha: float | Tensor = 0.25,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    target_format: TargetFormat = "multi_hot",
    num_terms: int | None = None,
) -> Tensor:
    r"""Sigmoid focal loss of RetinaNet with the first coefficients of its expansion moved by ``epsilon``.

    .. math:: \ell = \alpha_t (1-P_t)^\gamma \big(q\, \ell_1(p) + (1-q)\, \ell_1(1-p)\big), \quad
              \ell_1(x) = -\log x + \sum_j \epsilon_j (1-x)^j

    with :math:`p = \sigma(x)`, :math:`P_t = p q + (1-p)(1-q)` and :math:`\alpha_t = \alpha q + (1-\alpha)(1-q)`. For
    targets of 0 and 1 that is :math:`\alpha_t (1-P_t)^\gamma (-\log P_t + \sum_j \epsilon_j (1-P_t)^j)`, for one
    epsilon :math:`\alpha_t (1-P_t)^\gamma (\mathrm{BCE} + \epsilon (1-P_t))` for soft targets too.

    At epsilon 0 it is :func:`torchvision.ops.sigmoid_focal_loss`, in value, gradient, shape and dtype, for every
    alpha and gamma and for soft targets. The default of ``reduction`` is ``"mean"``, as in torch; torchvision's is
    ``"none"``. Detectors divide by the number of positives: take ``"sum"`` and do so.

    Args:
        input: logits of any shape. Half precision is computed in float32.
        target: probability of the positive for each element, shaped as ``input`` (integers and booleans count as 0
            and 1), or class indices: see ``target_format``.
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        alpha: weight of the positives in [0, 1], on every term; the negatives have ``1 - alpha``. -1 weighs neither. A
            tensor of shape ``(C)`` holds one number for each class along axis 1 (the only one of unbatched input).
        gamma: focusing exponent, at least 0; fractions too have finite gradients.
        weight: factor of each element, of a shape that broadcasts to ``input``; it multiplies every term.
        ignore_index: elements with this target count for nothing, so ``target.masked_fill(~mask, -100)`` masks them;
            for class indices all elements of the sample.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. ``"mean"`` divides by the number of elements that count.
        target_format: ``"multi_hot"`` for one target an element, ``"class_index"`` for one class index a sample, of
            shape ``()``, ``(N)`` or ``(N, d1, ..., dk)`` for ``input`` of shape ``(C)``, ``(N, C)`` or
            ``(N, C, d1, ..., dk)``, which is taken one-hot.
        num_terms: keep only the first terms of the series (the paper's L_Drop); None keeps all.

    Shape:
        Output: a scalar, or for ``"none"`` the shape of ``input``.

    Raises:
        TypeError: if ``epsilon``, ``alpha`` or ``gamma`` is not numeric, or a dtype does not fit.
        ValueError: if an option is out of its range, or shapes do not fit.

    Example:
        >>> import torch
        >>> input, target = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.5])
        >>> poly1_sigmoid_focal_loss(input, target, epsilon=1.0, reduction="none")
        tensor([0.0009, 0.0316, 0.1491])

    Reference:
        Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022;
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """
    epsilon = polynomial.as_epsilon(epsilon)
    polynomial.check_num_terms(num_terms, epsilon)
    polynomial.check_gamma(gamma)
    if not isinstance(alpha, Tensor) or alpha.dim() == 0:  # the values of a tensor are on the device: not waited for
        check_alpha(alpha)
    check_reduction(reduction)
    check_target_format(target_format)
    link = partial(
        sigmoid_focal_entries, alpha=alpha, weight=weight, ignore_index=ignore_index, target_format=target_format
    )
    axes = partial(sigmoid_axes, **link.keywords)
    return evaluate(link, input, target, epsilon, reduction, gamma=gamma, num_terms=num_terms, axes=axes)


def check_alpha(alpha: float | Tensor) -> None:
    """Raise unless ``alpha`` is a number in [0, 1], or -1."""
    given: object = alpha
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(
            f"`alpha` must be a number in [0, 1], -1 to weigh nothing, or a tensor of one a class, got {given!r}"
        )
    if not (0 <= alpha <= 1 or alpha == -1):
        raise ValueError(f"`alpha` must be in [0, 1], or -1 to weigh nothing, got {given!r}")
