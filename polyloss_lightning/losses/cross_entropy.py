"""Poly-1 cross-entropy, as a function and as a module."""

from collections.abc import Sequence

from torch import Tensor

from polyloss_lightning.core import Reduction, Softmax, as_polynomial
from polyloss_lightning.losses.base import PolyLoss, checked_loss, weight_tensor


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
    """Poly-1 cross-entropy; all is as in :class:`Poly1CrossEntropyLoss`, except that a weight must be a tensor.

    Example:
        >>> import torch
        >>> input, target = torch.tensor([[4.0, 2.0, 1.0], [0.0, 5.0, 1.0]]), torch.tensor([0, 1])
        >>> poly1_cross_entropy(input, target, epsilon=2.0, reduction="none")
        tensor([0.4823, 0.0736])
    """
    link = Softmax(weight, ignore_index, label_smoothing)
    return checked_loss(link, input, target, as_polynomial(epsilon, num_terms=num_terms), reduction)


class Poly1CrossEntropyLoss(PolyLoss):
    r"""Cross-entropy with the first coefficients of its expansion in :math:`1-P_t` moved by ``epsilon``.

    .. math:: \ell = w_y \Big(-\log P_t + \sum_j \epsilon_j (1-P_t)^j\Big)

    For probabilities ``q`` (soft labels, mixup, smoothing) it is the ``q``-weighted sum of the same over classes. It
    accepts what :class:`torch.nn.CrossEntropyLoss` accepts, and at epsilon 0 it equals that loss in value, gradient,
    shape and dtype. Epsilon acts late in training: at a cold start (Pt near 1/C) it changes almost nothing, on
    confident samples it multiplies the gradient by ``1 + epsilon``; -1 removes the first term.

    Args:
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        weight: class weights, one non-negative number per class; they multiply every term.
        ignore_index: class index whose samples do not count; for class indices only.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. ``"mean"`` divides by the total weight of the samples that
            count for class indices, and by the number of samples for probabilities, so turning on mixup changes the
            scale of a class-weighted loss (as in torch).
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
        >>> loss = Poly1CrossEntropyLoss(epsilon=-1.0, label_smoothing=0.1)
        >>> input = torch.tensor([[4.0, 2.0, 1.0], [0.0, 5.0, 1.0]])
        >>> loss(input, torch.tensor([0, 1]))
        tensor(0.1827)
        >>> loss.epsilon = 2.0  # as a schedule does
    """

    link_type = Softmax
    weight: Tensor | None

    def __init__(
        self,
        epsilon: float | Sequence[float] = 1.0,
        *,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
        num_terms: int | None = None,
    ) -> None:
        super().__init__(epsilon, reduction=reduction, num_terms=num_terms)
        self.register_buffer("weight", weight_tensor(weight, "weight", per_class=True), persistent=False)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.link().check_options()
