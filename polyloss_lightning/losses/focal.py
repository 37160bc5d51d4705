"""Poly-1 softmax focal loss, as a function and as a module."""

from collections.abc import Sequence

from torch import Tensor

from polyloss_lightning.core import Reduction, Softmax, as_polynomial
from polyloss_lightning.core.polynomial import as_gamma
from polyloss_lightning.losses.base import PolyLoss, checked_loss, weight_tensor


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
    """Poly-1 softmax focal loss; all is as in :class:`Poly1FocalLoss`, except that a weight must be a tensor.

    Example:
        >>> import torch
        >>> input, target = torch.tensor([[4.0, 2.0, 1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1])
        >>> poly1_focal_loss(input, target, epsilon=1.0, reduction="none")
        tensor([0.0080, 0.1752])
    """
    link = Softmax(weight, ignore_index, label_smoothing)
    return checked_loss(link, input, target, as_polynomial(epsilon, gamma, num_terms), reduction)


class Poly1FocalLoss(PolyLoss):
    r"""Softmax focal loss with the first coefficients of its expansion in :math:`1-P_t` moved by ``epsilon``.

    .. math:: \ell = w_y (1-P_t)^\gamma \Big(-\log P_t + \sum_j \epsilon_j (1-P_t)^j\Big)

    At gamma 0 it is :class:`~polyloss_lightning.losses.Poly1CrossEntropyLoss`, whose targets (also probabilities),
    weights and denominators it shares. Use it for classes that exclude each other. If they do not, or if most of a
    dense input is background, use :class:`~polyloss_lightning.losses.Poly1SigmoidFocalLoss`.

    Args:
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        gamma: focusing exponent, at least 0; fractions too have finite gradients.
        weight: class weights, one non-negative number per class, like RetinaNet's alpha; they multiply every term.
        ignore_index: class index whose samples do not count; for class indices only.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, with the denominators of cross-entropy.
        label_smoothing: share of each target spread evenly over the classes, in [0, 1].
        num_terms: keep only the first terms of the series (the paper's L_Drop); None keeps all.

    Shape:
        - input: ``(C)``, ``(N, C)`` or ``(N, C, d1, ..., dk)``. Half precision is computed in float32.
        - target: class indices ``()``, ``(N)`` or ``(N, d1, ..., dk)``, or probabilities of the shape of the input.
        - output: a scalar, or for ``"none"`` the shape of the input without the class axis.

    Raises:
        TypeError: if ``ignore_index`` is not an integer, or another number or ``weight`` is not numeric.
        ValueError: if an option is out of its range.

    Example:
        >>> import torch
        >>> loss = Poly1FocalLoss(epsilon=1.0, gamma=2.0, reduction="none")
        >>> loss(torch.tensor([[4.0, 2.0, 1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.0080, 0.1752])
    """

    link_type = Softmax
    weight: Tensor | None

    def __init__(
        self,
        epsilon: float | Sequence[float] = 1.0,
        *,
        gamma: float = 2.0,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
        num_terms: int | None = None,
    ) -> None:
        super().__init__(epsilon, reduction=reduction, num_terms=num_terms)
        self.register_buffer("weight", weight_tensor(weight, "weight", per_class=True), persistent=False)
        self.gamma = as_gamma(gamma)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.link().check_options()
