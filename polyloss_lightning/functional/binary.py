"""Poly-1 binary cross-entropy as a pure function."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from polyloss_lightning import polynomial
from polyloss_lightning.evaluation import evaluate
from polyloss_lightning.links import sigmoid_axes, sigmoid_entries
from polyloss_lightning.reduction import Reduction, check_reduction


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
    r"""Binary cross-entropy, each element a two-class problem whose first coefficients are moved by ``epsilon``.

    .. math:: \ell = w \big(w_+\, q\, \ell_1(p) + (1-q)\, \ell_1(1-p)\big), \quad
              \ell_1(P_t) = -\log P_t + \sum_j \epsilon_j (1-P_t)^j, \quad p = \sigma(x)

    At epsilon 0 it is :func:`torch.nn.functional.binary_cross_entropy_with_logits`, in value, gradient, shape and
    dtype; it stays finite where a negative has a logit of ``-inf``.

    Args:
        input: logits of any shape. Half precision is computed in float32.
        target: probability of the positive for each element, shaped as ``input``; integers and booleans count as
            0 and 1.
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        weight: factor of each element, of a shape that broadcasts to ``input``; it multiplies every term.
        ignore_index: elements with this target count for nothing, so ``target.masked_fill(~mask, -100)`` masks them.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. ``"mean"`` divides by the number of elements that count, not
            by their weights (as in torch).
        pos_weight: factor of the positives, of a shape that broadcasts to ``input``; it multiplies every term.
        num_terms: keep only the first terms of the series (the paper's L_Drop); None keeps all.

    Shape:
        Output: a scalar, or for ``"none"`` the shape of ``input``.

    Raises:
        TypeError: if ``epsilon`` is not numeric, or a dtype does not fit.
        ValueError: if ``epsilon`` is not finite, or shapes or options do not fit.

    Example:
        >>> import torch
        >>> input, target = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.5])
        >>> poly1_binary_cross_entropy_with_logits(input, target, epsilon=1.0, reduction="none")
        tensor([0.2461, 0.5822, 1.1931])

    Reference:
        Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022.
    """
    epsilon = polynomial.as_epsilon(epsilon)
    polynomial.check_num_terms(num_terms, epsilon)
    check_reduction(reduction)
    link = partial(sigmoid_entries, weight=weight, pos_weight=pos_weight, ignore_index=ignore_index)
    axes = partial(sigmoid_axes, **link.keywords)
    return evaluate(link, input, target, epsilon, reduction, num_terms=num_terms, axes=axes)
