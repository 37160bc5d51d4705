"""The callback that weights the classes of a loss by their number of training samples."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from polyloss_lightning._checks import as_number, check_choice
from polyloss_lightning.callbacks.base import Callback
from polyloss_lightning.callbacks.monitor.class_values import given_counts
from polyloss_lightning.losses import Poly1CrossEntropyLoss, Poly1FocalLoss

Scheme: TypeAlias = Literal["balanced", "effective_number"]


class ClassWeights(Callback):
    r"""Sets the class weights of the losses of a module from the number of training samples of each class.

    ``balanced`` makes the weight of a class inverse to its count :math:`n_c`, and ``effective_number`` inverse to the
    effective number of its samples, :math:`(1 - \beta^{n_c}) / (1 - \beta)` (Cui et al., CVPR 2019). Both are scaled to
    a mean of 1 over the classes. With beta 0 all classes get the same weight; as beta approaches 1, the weights
    approach ``balanced``.

    The counts are the ``class_counts`` of the datamodule. The weights are set before a stage starts and before the
    module's own ``setup`` and ``configure_model`` run, so the module has to build its losses in ``__init__``. A
    :class:`~polyloss_lightning.provider.LossProvider` saves the weights in the checkpoint with all arguments of its
    loss.

    Args:
        scheme: ``"balanced"`` or ``"effective_number"``.
        beta: at least 0 and below 1; only for ``effective_number``. The paper uses 0.9, 0.99, 0.999 and 0.9999.

    Raises:
        TypeError: if ``beta`` is not a number.
        ValueError: if an argument is out of range; when a stage starts, if the datamodule has no ``class_counts``, if a
            class has no training samples, or if the module has no softmax loss or one with other class weights.

    Example:
        >>> ClassWeights("balanced").weight([120, 40, 10])
        tensor([0.1875, 0.5625, 2.2500])
    """

    def __init__(self, scheme: Scheme = "balanced", beta: float = 0.999) -> None:
        check_choice("scheme", scheme, get_args(Scheme))
        self.scheme = scheme
        self.beta = as_number("beta", beta, within="at least 0 and below 1", at_least=0)
        if self.beta >= 1:
            raise ValueError(f"`beta` must be at least 0 and below 1, got {beta}")

    def weight(self, counts: Sequence[float]) -> Tensor:
        """Return the weight of each class, one entry per entry of ``counts``."""
        if min(counts, default=0) < 1:
            raise ValueError(f"every class needs at least 1 training sample, got counts {list(counts)}")
        number = torch.tensor(counts, dtype=torch.float64)
        if self.scheme == "effective_number":
            number = (1 - self.beta**number) / (1 - self.beta)
        weight = 1 / number
        return (weight / weight.mean()).float()

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        counts = given_counts(trainer)
        if counts is None:
            if stage == "predict":  # no loss is computed
                return
            raise ValueError("ClassWeights needs a datamodule with the attribute `class_counts`, one count per class")
        losses = [loss for loss in pl_module.modules() if isinstance(loss, Poly1CrossEntropyLoss | Poly1FocalLoss)]
        if not losses:
            raise ValueError(
                "ClassWeights needs a Poly1CrossEntropyLoss or Poly1FocalLoss in the module, and "
                f"{type(pl_module).__name__} has none (one that is built in `setup` or `configure_model` is built too "
                "late: build it in `__init__`)"
            )
        weight = self.weight(counts)
        for loss in losses:
            if loss.weight is not None and not _same(loss.weight, weight):
                raise ValueError(
                    f"{type(loss).__name__} already has class weights, which differ from those of this data: pass no "
                    "`weight`, and use a new module (or set `loss.weight = None`) for other training data"
                )
            loss.weight = weight.to(pl_module.device)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.cpu().float(), other, rtol=1e-2)  # may be rounded to bf16
