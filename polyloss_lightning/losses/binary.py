"""Poly-1 binary cross-entropy, as a function and as a module."""

from collections.abc import Sequence

from torch import Tensor

from polyloss_lightning.core import Reduction, Sigmoid, as_polynomial
from polyloss_lightning.losses.base import PolyLoss, checked_loss, weight_tensor


def poly1_binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    epsilon: float | Sequence[float] = 1.0,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
    num_terms: int | None = None,
) -> Tensor:
    """Poly-1 binary cross-entropy; all is as in :class:`Poly1BCEWithLogitsLoss`, except that weights must be tensors.

    Example:
        >>> import torch
        >>> input, target = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.5])
        >>> poly1_binary_cross_entropy_with_logits(input, target, epsilon=1.0, reduction="none")
        tensor([0.2461, 0.5822, 1.1931])
    """
    link = Sigmoid(weight, pos_weight, ignore_index)
    return checked_loss(link, input, target, as_polynomial(epsilon, num_terms=num_terms), reduction)


class Poly1BCEWithLogitsLoss(PolyLoss):
    r"""Binary cross-entropy, each element a two-class problem whose first coefficients are moved by ``epsilon``.

    .. math:: \ell = w \big(w_+\, q\, \ell_1(p) + (1-q)\, \ell_1(1-p)\big), \quad
              \ell_1(P_t) = -\log P_t + \sum_j \epsilon_j (1-P_t)^j, \quad p = \sigma(x)

    It accepts what :class:`torch.nn.BCEWithLogitsLoss` accepts, and at epsilon 0 it equals that loss in value,
    gradient, shape and dtype. For binary and multi-label problems; epsilon acts on positives and negatives alike.

    Args:
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        weight: non-negative factor of each element, in a shape that broadcasts to the input; it multiplies every term.
        ignore_index: elements with this target do not count, so ``target.masked_fill(~mask, -100)`` masks them.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. ``"mean"`` divides by the number of elements that count, not
            by their weights (as in torch).
        pos_weight: non-negative factor of the positives, of a shape that broadcasts to the input, as ``(C)`` to
            ``(N, C)``; on every term.
        num_terms: keep only the first terms of the series (the paper's L_Drop); None keeps all.

    Shape:
        - input: any; the logit of a negative may be ``-inf``. Half precision is computed in float32.
        - target: probability of the positive for each element, shaped as the input; integers and booleans count as 0
          and 1.
        - output: a scalar, or for ``"none"`` the shape of the input.

    Raises:
        TypeError: if ``epsilon`` or a weight is not numeric, or ``ignore_index`` is not an integer.
        ValueError: if an option is out of its range.

    Example:
        >>> import torch
        >>> loss = Poly1BCEWithLogitsLoss(epsilon=-1.0, pos_weight=[3.0, 1.0])
        >>> loss(torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor(0.1531)
    """

    link_type = Sigmoid
    alpha = None  # as in the focal loss, which has no pos_weight
    target_format = "multi_hot"
    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        epsilon: float | Sequence[float] = 1.0,
        *,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        pos_weight: Tensor | Sequence[float] | None = None,
        num_terms: int | None = None,
    ) -> None:
        super().__init__(epsilon, reduction=reduction, num_terms=num_terms)
        self.register_buffer("weight", weight_tensor(weight, "weight"), persistent=False)
        self.register_buffer("pos_weight", weight_tensor(pos_weight, "pos_weight"), persistent=False)
        self.ignore_index = ignore_index
        self.link().check_options()
