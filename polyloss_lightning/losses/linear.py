"""Poly-1 cross-entropy of a linear layer, as a function and as a module, without holding all logits."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from polyloss_lightning._checks import check_choice
from polyloss_lightning.core import Entries, Polynomial, Reduction, Softmax, as_polynomial
from polyloss_lightning.core.linear_softmax import linear_loss, logits
from polyloss_lightning.core.loss import REDUCTIONS, loss
from polyloss_lightning.losses.cross_entropy import Poly1CrossEntropyLoss


def poly1_linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    epsilon: float | Sequence[float] = 1.0,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    num_terms: int | None = None,
) -> Tensor:
    r"""Poly-1 cross-entropy of the logits ``linear(input, linear_weight, linear_bias)``, which are never held at once.

    It is :func:`~polyloss_lightning.functional.poly1_cross_entropy` of these logits, for tens of thousands of classes,
    where the logits are what takes the memory. For what is computed when, and for the limits, see
    :class:`Poly1LinearCrossEntropyLoss`.

    Args:
        input: features, shape ``(D)`` or ``(N, D)``.
        linear_weight: weight of the linear layer, shape ``(C, D)``.
        target: class indices, shape ``()`` or ``(N)``, or probabilities, shape ``(C)`` or ``(N, C)``.
        epsilon: perturbation of the first coefficients.
        linear_bias: bias of the linear layer, shape ``(C)``.
        weight: class weights, shape ``(C)``.
        ignore_index: class index whose samples do not count.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: share of each target spread evenly over the classes.
        num_terms: keep only the first terms of the series.

    Example:
        >>> import torch
        >>> input = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> linear_weight = torch.tensor([[4.0, 0.0], [2.0, 2.5], [1.0, 0.5]])
        >>> poly1_linear_cross_entropy(input, linear_weight, torch.tensor([0, 1]), epsilon=2.0, reduction="none")
        tensor([0.4823, 0.0736])
    """
    link = Softmax(weight, ignore_index, label_smoothing)
    link.check_options()
    check_choice("reduction", reduction, REDUCTIONS)
    if weight is not None and not isinstance(weight, Tensor):
        raise TypeError(f"`weight` must be a tensor or None, got {weight!r}")
    polynomial = as_polynomial(epsilon, num_terms=num_terms)
    return linear_loss(link, input, linear_weight, target, linear_bias, polynomial, reduction)


class Poly1LinearCrossEntropyLoss(Poly1CrossEntropyLoss):
    r"""Poly-1 cross-entropy of a linear layer, which never holds all of its logits.

    .. math:: \ell = w_y \Big(-\log P_t + \sum_j \epsilon_j (1-P_t)^j\Big), \quad P = \mathrm{softmax}(W x + b)

    The loss owns no parameter: it is called with the weight (and bias) of the layer,
    ``loss(features, layer.weight, target, layer.bias)``. It computes at most 256 rows of the logits at a time, and from
    them their loss and the gradients of features, weight and bias. These gradients are what is kept for the backward
    pass; do not modify features, weight or targets in place before it.

    - With reduction ``"none"``, nothing is kept, and the backward pass computes the logits once more.
    - Under autocast the logits have its dtype, and the gradients of weight and bias are added up in float32.
    - The graph of ``torch.compile`` breaks at the loss, so it cannot be compiled with ``fullgraph=True``.
    - All logits are computed, as by a linear layer followed by :class:`Poly1CrossEntropyLoss`, under ``torch.func``,
      forward mode, ``torch.export`` and ``torch.jit``, for subclasses of tensors such as ``DTensor``, for class weights
      that need a gradient, and for second derivatives (``create_graph=True``).
    - ``retain_graph=True`` keeps the gradients, so a backward pass needs as much memory once more.

    Args:
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        weight: class weights, one non-negative number per class; they multiply every term.
        ignore_index: class index whose samples do not count.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, with the denominators of
            :func:`~polyloss_lightning.functional.poly1_cross_entropy`.
        label_smoothing: share of each target spread evenly over the classes, in [0, 1].
        num_terms: keep only the first terms of the series; None keeps all.

    Shape:
        - input: features, ``(D)`` or ``(N, D)``.
        - linear_weight: ``(C, D)``; linear_bias: ``(C)`` or None.
        - target: class indices ``()`` or ``(N)``, or probabilities ``(C)`` or ``(N, C)``.
        - output: a scalar, or for ``"none"`` the shape of the class indices.

    Raises:
        TypeError: if ``ignore_index`` is not an integer, or another number or ``weight`` is not numeric.
        ValueError: if an option is out of its range, or shapes do not fit each other.

    Example:
        >>> import torch
        >>> head = torch.nn.Linear(64, 32_000)
        >>> loss = Poly1LinearCrossEntropyLoss(epsilon=2.0)
        >>> loss(torch.zeros(8, 64), head.weight, torch.arange(8), head.bias).shape
        torch.Size([])

    Reference:
        Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022.
    """

    def entries(  # type: ignore[override]
        self, input: Tensor, linear_weight: Tensor, target: Tensor, linear_bias: Tensor | None = None
    ) -> Entries:
        """Return what enters the polynomial: the log-probability and the weight of each entry, from all logits."""
        entries: Entries = self.link().entries(logits(input, linear_weight, linear_bias), target)
        return entries

    @torch.jit.unused
    def forward(  # type: ignore[override]
        self, input: Tensor, linear_weight: Tensor, target: Tensor, linear_bias: Tensor | None = None
    ) -> Tensor:
        """Return the loss of the logits ``linear(input, linear_weight, linear_bias)`` and ``target``."""
        polynomial = Polynomial(self._epsilon, self.gamma, self.num_terms)
        on_entries = self._notify if self._observers else None
        return self._loss(polynomial, on_entries, input, linear_weight, target, linear_bias)

    def base_loss(  # type: ignore[override]
        self, input: Tensor, linear_weight: Tensor, target: Tensor, linear_bias: Tensor | None = None
    ) -> Tensor:
        """Return the loss without epsilon and with every term: torch's own. It does not move with epsilon."""
        return self._loss(Polynomial((0.0,), self.gamma), None, input, linear_weight, target, linear_bias)

    def _loss(
        self,
        polynomial: Polynomial,
        on_entries: Callable[[Entries], None] | None,
        input: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        linear_bias: Tensor | None,
    ) -> Tensor:
        if type(self).entries is Poly1LinearCrossEntropyLoss.entries and "entries" not in self.__dict__:
            layer = (input, linear_weight, target, linear_bias)
            return linear_loss(self.link(), *layer, polynomial, self._reduction, on_entries)
        link = _OwnEntries(self, linear_weight, linear_bias)
        return loss(link, input, target, polynomial, self._reduction, on_entries)


class _OwnEntries(NamedTuple):
    """The link of a subclass that overrides ``entries``."""

    loss: Poly1LinearCrossEntropyLoss
    linear_weight: Tensor
    linear_bias: Tensor | None

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        return self.loss.entries(input, self.linear_weight, target, self.linear_bias)
