"""Poly-1 sigmoid focal loss, as a function and as a module."""

from collections.abc import Sequence

from torch import Tensor

from polyloss_lightning._checks import as_number, as_numbers
from polyloss_lightning.core import Reduction, Sigmoid, TargetFormat, as_polynomial
from polyloss_lightning.core.polynomial import as_gamma
from polyloss_lightning.losses.base import PolyLoss, checked_loss, weight_tensor


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
    """Poly-1 sigmoid focal loss; all is as in :class:`Poly1SigmoidFocalLoss`, except that weights must be tensors.

    Example:
        >>> import torch
        >>> input, target = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.5])
        >>> poly1_sigmoid_focal_loss(input, target, epsilon=1.0, reduction="none")
        tensor([0.0009, 0.0316, 0.1491])
    """
    link = Sigmoid(weight, None, ignore_index, _as_alpha(alpha), target_format)
    return checked_loss(link, input, target, as_polynomial(epsilon, gamma, num_terms), reduction)


class Poly1SigmoidFocalLoss(PolyLoss):
    r"""Sigmoid focal loss of RetinaNet with the first coefficients of its expansion moved by ``epsilon``.

    .. math:: \ell = \alpha_t (1-P_t)^\gamma \big(q\, \ell_1(p) + (1-q)\, \ell_1(1-p)\big), \quad
              \ell_1(x) = -\log x + \sum_j \epsilon_j (1-x)^j

    with :math:`p = \sigma(x)`, :math:`P_t = p q + (1-p)(1-q)` and :math:`\alpha_t = \alpha q + (1-\alpha)(1-q)`. For
    targets of 0 and 1 that is :math:`\alpha_t (1-P_t)^\gamma (-\log P_t + \sum_j \epsilon_j (1-P_t)^j)`, for one
    epsilon :math:`\alpha_t (1-P_t)^\gamma (\mathrm{BCE} + \epsilon (1-P_t))` for soft targets too.

    At epsilon 0 it is :func:`torchvision.ops.sigmoid_focal_loss`, in value, gradient, shape and dtype. The default of
    ``reduction`` is ``"mean"``, as in torch; torchvision's is ``"none"``. Detectors usually divide by the number of
    positives: use ``reduction="sum"`` and divide the result. The loss is meant for detection and for multi-label
    problems with few positives.

    Args:
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        alpha: weight of the positives in [0, 1], on every term; the negatives have ``1 - alpha``. -1 turns this
            weighting off. A sequence or tensor holds one such number for each class along axis 1 (the only one of
            unbatched input).
        gamma: focusing exponent, at least 0; fractions too have finite gradients.
        weight: non-negative factor of each element, in a shape that broadcasts to the input; it multiplies every term.
        ignore_index: elements with this target do not count, so ``target.masked_fill(~mask, -100)`` masks them;
            for class indices all elements of the sample.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. ``"mean"`` divides by the number of elements that count.
        target_format: ``"multi_hot"`` for one target per element, ``"class_index"`` for one class index per sample,
            which is converted to one-hot.
        num_terms: keep only the first terms of the series (the paper's L_Drop); None keeps all.

    Shape:
        - input: any; for class indices ``(C)``, ``(N, C)`` or ``(N, C, d1, ..., dk)``. Half precision is computed in
          float32.
        - target: probability of the positive for each element, shaped as the input (integers and booleans count as 0
          and 1); for class indices the shape of the input without the class axis.
        - output: a scalar, or for ``"none"`` the shape of the input.

    Raises:
        TypeError: if ``ignore_index`` is not an integer, or another number, ``alpha`` or ``weight`` is not numeric.
        ValueError: if an option is out of its range.

    Example:
        >>> import torch
        >>> loss = Poly1SigmoidFocalLoss(epsilon=-1.0, reduction="sum", target_format="class_index")
        >>> loss(torch.tensor([[2.0, -1.0, -3.0], [0.5, 0.0, 1.0]]), torch.tensor([0, -100]))
        tensor(0.0024)
    """

    link_type = Sigmoid
    pos_weight = None
    alpha: float | Tensor
    weight: Tensor | None

    def __init__(
        self,
        epsilon: float | Sequence[float] = 1.0,
        *,
        alpha: float | Sequence[float] | Tensor = 0.25,
        gamma: float = 2.0,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        target_format: TargetFormat = "multi_hot",
        num_terms: int | None = None,
    ) -> None:
        super().__init__(epsilon, reduction=reduction, num_terms=num_terms)
        self.register_buffer("weight", weight_tensor(weight, "weight"), persistent=False)
        if isinstance(alpha, Sequence):
            alpha = as_numbers("alpha", alpha, "a number, or a sequence of one number per class")
        if isinstance(alpha, (Tensor, Sequence)):
            self.register_buffer("alpha", weight_tensor(alpha, "alpha", per_class=True, at_most=1), persistent=False)
        else:
            self.alpha = _as_alpha(alpha)
        self.gamma = as_gamma(gamma)
        self.ignore_index = ignore_index
        self.target_format = target_format
        self.link().check_options()


def _as_alpha(alpha: float | Tensor) -> float | Tensor:
    """Return ``alpha`` as a float; the values of a tensor are not checked, because that would wait for the device."""
    if isinstance(alpha, Tensor):
        return alpha
    if isinstance(alpha, (int, float)) and alpha == -1:
        return -1.0
    kind = "a number in [0, 1], -1 for no weighting, or a tensor of one number per class"
    return as_number("alpha", alpha, kind, "in [0, 1], or -1 for no weighting", at_least=0, at_most=1)
