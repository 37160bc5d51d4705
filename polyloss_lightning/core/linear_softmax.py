"""The softmax link of a linear layer, which never holds all of its logits."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from polyloss_lightning.core.entries import Entries, autocast_dtype
from polyloss_lightning.core.softmax import Softmax

# Rows of the logits that torch's operator holds at a time. Measured on one CPU thread for 1,024 rows, 256 features and
# 21,841 classes: 64 rows take 1.1 times as long, and 1,024 rows 4 times the memory without being faster.
_ROWS = 256


class LinearSoftmax(NamedTuple):
    r""":class:`Softmax` of ``linear(input, linear_weight, linear_bias)``, for class indices.

    It stands on :func:`torch.nn.functional.linear_cross_entropy`, which computes the logits in chunks of rows in the
    forward pass and once more in the backward pass. :math:`-\log P_t` has the accuracy of torch's operator.

    Args:
        linear_weight: weight of the linear layer, shape ``(C, D)``.
        linear_bias: bias of the linear layer, shape ``(C)``, or None.
        weight: class weights, shape ``(C)``.
        ignore_index: class index whose entries do not count.
    """

    linear_weight: Tensor
    linear_bias: Tensor | None = None
    weight: Tensor | None = None
    ignore_index: int = -100

    def check_options(self) -> None:
        """Raise ``TypeError`` or ``ValueError`` if an option is out of its range."""
        Softmax(self.weight, self.ignore_index).check_options()

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """Return one entry per sample; ``input`` has shape ``(D)`` or ``(N, D)``, ``target`` ``()`` or ``(N)``."""
        self._check(input, target)
        operands = [input, self.linear_weight, *([] if self.linear_bias is None else [self.linear_bias])]
        dtype = input.dtype
        if torch.amp.is_autocast_available(input.device.type) and torch.is_autocast_enabled(input.device.type):
            # torch's operator does not take part in autocast; its linear layer does.
            operands = [tensor.to(torch.get_autocast_dtype(input.device.type)) for tensor in operands]
            dtype = autocast_dtype(input, operands[0].dtype)
        features, linear_weight, *bias = operands
        options: Any = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=_ROWS, chunking_method=None)
        with torch._C.DisableTorchFunction():  # an override of torch's losses must not replace this call
            nll = F.linear_cross_entropy(
                features,
                linear_weight,
                target.long(),
                linear_bias=bias[0] if bias else None,
                reduction="none",
                ignore_index=self.ignore_index,
                options=options,
            )
        if nll.requires_grad and not torch.compiler.is_compiling():  # compiled graphs have no second derivative either
            nll.register_hook(_refuse_double_backward)  # type: ignore[no-untyped-call]
        compute_dtype = torch.promote_types(nll.dtype, torch.float32)
        index, _, weight = Softmax(self.weight, self.ignore_index).samples(target, compute_dtype)
        return Entries(-nll.to(compute_dtype), weight, index, weight.sum(), None, dtype)

    def _check(self, input: Tensor, target: Tensor) -> None:
        num_classes, num_features = self.linear_weight.shape
        if input.dim() not in (1, 2) or input.shape[-1] != num_features:
            raise ValueError(
                f"`input` must have shape (D) or (N, D) with D = {num_features} for `linear_weight` of shape "
                f"{tuple(self.linear_weight.shape)}, got shape {tuple(input.shape)}"
            )
        if target.shape != input.shape[:-1]:
            raise ValueError(
                f"`target` must have shape {tuple(input.shape[:-1])}, one class index per sample of `input` of shape "
                f"{tuple(input.shape)}, got shape {tuple(target.shape)}"
            )
        if target.dtype not in (torch.int64, torch.uint8):
            raise TypeError(f"`target` must hold class indices as torch.int64 or torch.uint8, got {target.dtype}")
        for name, option in (("linear_bias", self.linear_bias), ("weight", self.weight)):
            if option is not None and option.shape != (num_classes,):
                raise ValueError(
                    f"`{name}` must have shape ({num_classes},), one entry per class, got shape {tuple(option.shape)}"
                )


def linear_link(
    link: Softmax, input: Tensor, linear_weight: Tensor, target: Tensor, linear_bias: Tensor | None
) -> tuple[Softmax | LinearSoftmax, Tensor]:
    """Return the link of a linear layer followed by ``link``, and its input: the features, or else the logits.

    The logits are needed where torch's operator has no chunks or no derivative: with label smoothing, probabilities as
    targets, weights that are not a matrix, forward mode, ``torch.func``, ``torch.jit``, and in torch before 2.14.
    """
    matrix = linear_weight.dim() == 2 and (linear_bias is None or linear_bias.dim() == 1)
    chunked = (
        hasattr(F, "linear_cross_entropy")
        and matrix
        and link.label_smoothing == 0
        and not target.is_floating_point()
        and type(input) in (Tensor, torch.nn.Parameter)
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and torch._C._get_tracing_state() is None
    )
    if chunked:
        return LinearSoftmax(linear_weight, linear_bias, link.weight, link.ignore_index), input
    bias = None if linear_bias is None else linear_bias.flatten()
    logits = F.linear(input, linear_weight.flatten(0, -2), bias)
    return link, logits.reshape(*input.shape[:-1], *linear_weight.shape[:-1])


def _refuse_double_backward(grad: Tensor) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the loss of a linear layer in chunks has no second derivative: for create_graph=True, compute the logits "
            "and use poly1_cross_entropy"
        )
