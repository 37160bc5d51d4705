"""The sigmoid link: every element of the input is a two-class problem of its own."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from polyloss_lightning.links.entries import (
    Entries,
    check_class_indices,
    check_ignore_index,
    check_logits,
    drop_impossible,
    output_dtype,
)
from polyloss_lightning.links.tracing import constant

TargetFormat: TypeAlias = Literal["multi_hot", "class_index"]
_TARGET_FORMATS = get_args(TargetFormat)  # here, because torch.compile of torch 2.6 does not trace it


def sigmoid_entries(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Entries:
    """Entries of a sigmoid loss: torch's ``binary_cross_entropy_with_logits`` up to the polynomial.

    Each element gives two entries, stacked along a new first axis: the positive with probability ``sigmoid(x)`` and
    weight ``q``, the negative with probability ``sigmoid(-x)`` and weight ``1 - q``. The class index of both is their
    index along the class axis, axis 1; where there is but one logit a sample, it is 1 for the positive, 0 for the
    negative.

    Args:
        input: logits of any shape.
        target: probability of the positive for each element, shaped as ``input``.
        weight: factor of each element, broadcast to ``input``.
        pos_weight: factor of the positive entries, broadcast to ``input``.
        ignore_index: elements with this target do not count.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if shapes do not fit each other.
    """
    log_p, share, denominator = _pair(input, *_elementwise(input, target, ignore_index))
    if pos_weight is not None:
        check_broadcast("pos_weight", pos_weight, input)
        share = torch.stack([share[0] * pos_weight.to(share.dtype), share[1]])
    share = _weigh(share, weight, input)
    # torch's loss comes back in the dtype of its target.
    dtype = output_dtype(input, target.dtype if target.is_floating_point() else None)
    return Entries(drop_impossible(log_p, share), share, _classes(input), denominator, 0, dtype)


def sigmoid_focal_entries(
    input: Tensor,
    target: Tensor,
    *,
    alpha: float | Tensor = 0.25,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    target_format: TargetFormat = "multi_hot",
) -> Entries:
    """Entries of torchvision's ``sigmoid_focal_loss`` up to the polynomial, also for soft targets.

    They are those of :func:`sigmoid_entries`, weighted by ``alpha q + (1 - alpha)(1 - q)``; gamma acts on one
    ``1 - Pt`` an element, ``Pt = p q + (1 - p)(1 - q)``.

    Args:
        input: logits of any shape, or ``(C)``, ``(N, C)``, ``(N, C, d1, ..., dk)`` for class indices.
        target: probability of the positive for each element, shaped as ``input``, or class indices.
        alpha: weight of the positives, the negatives have ``1 - alpha``; -1 weighs neither. A tensor of shape ``(C)``
            holds one number for each class along the class axis, axis 1 (or the only one).
        weight: factor of each element, broadcast to ``input``.
        ignore_index: elements with this target do not count; for class indices, all elements of the sample.
        target_format: whether there is a target for each element or one class index a sample.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if shapes do not fit each other.
    """
    as_targets = _one_hot if target_format == "class_index" else _elementwise
    log_p, share, denominator = _pair(input, *as_targets(input, target, ignore_index))
    # A sum of positive parts: nothing cancels as Pt nears 1.
    miss = (share * log_p.exp().flip(0)).sum(0)
    if isinstance(alpha, Tensor) and alpha.dim() > 0:
        alpha, weighs = _along_classes(alpha, input).to(share.dtype), True
    else:
        weighs = bool(alpha >= 0)
    if weighs:
        share = share * (share[0] * alpha + share[1] * (1 - alpha))
    share = _weigh(share, weight, input)
    log_p = drop_impossible(log_p, share)
    dtype = output_dtype(input, torch.promote_types(input.dtype, target.dtype) if target.is_floating_point() else None)
    return Entries(log_p, share, _classes(input), denominator, 0, dtype, miss.expand_as(log_p))


def sigmoid_axes(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    alpha: float | Tensor = -1,
    **_: object,
) -> tuple[int, ...]:
    """Axes of ``input`` along which :func:`sigmoid_entries` and :func:`sigmoid_focal_entries` may be cut.

    It takes the options of both. There is no cut along an axis of a weight, nor along the class axis where there is one
    class index a sample or one ``alpha`` a class.
    """
    if input.dim() < 2 or not constant(weight, pos_weight, alpha):
        return ()
    whole = {1} if input.shape != target.shape or isinstance(alpha, Tensor) else set()
    for factor in (weight, pos_weight):
        if factor is not None:
            whole.update(input.dim() - 1 - d for d, size in enumerate(reversed(factor.shape)) if size != 1)
    return tuple(axis for axis in range(input.dim()) if axis not in whole)


def check_target_format(target_format: str) -> None:
    """Raise ``ValueError`` unless ``target_format`` is one that exists."""
    if target_format not in _TARGET_FORMATS:
        raise ValueError(f"`target_format` must be one of {_TARGET_FORMATS}, got {target_format!r}")


def check_broadcast(name: str, weight: Tensor, input: Tensor) -> None:
    """Raise ``ValueError`` unless ``weight`` can be broadcast to the shape of ``input``."""
    # Indices and ==: torch.compile of torch 2.6 refuses a zip of unequal lengths and finds no dynamic size in a tuple.
    fits = (weight.shape[-d] == 1 or weight.shape[-d] == input.shape[-d] for d in range(1, weight.dim() + 1))
    if weight.dim() > input.dim() or not all(fits):
        raise ValueError(
            f"`{name}` must be broadcastable to `input` of shape {tuple(input.shape)}, got shape {tuple(weight.shape)}"
        )


def _pair(input: Tensor, target: Tensor, counted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``log_p`` and the share of the positive and negative entry of each element, and the number that count."""
    dtype = torch.promote_types(input.dtype, torch.float32)
    if target.is_floating_point():
        dtype = torch.promote_types(dtype, target.dtype)
    logits, positive = input.to(dtype), target.to(dtype)
    # logsigmoid(-x) keeps every digit of log(1 - p), where log(1 - sigmoid(x)) has lost all of them by x = 17. What is
    # ignored is masked before it: behind it the zero gradient would meet the slope at a NaN logit. Infinity gives 0.
    log_p = torch.nn.functional.logsigmoid(torch.stack([logits, -logits]).masked_fill(~counted, torch.inf))
    share = torch.stack([positive, 1 - positive]).masked_fill(~counted, 0)
    return log_p, share, counted.sum().to(dtype)


def _weigh(share: Tensor, weight: Tensor | None, input: Tensor) -> Tensor:
    if weight is None:
        return share
    check_broadcast("weight", weight, input)
    return share * weight.to(share.dtype)


def _along_classes(alpha: Tensor, input: Tensor) -> Tensor:
    class_dim = min(1, input.dim() - 1)
    if input.dim() == 0 or alpha.shape != (input.shape[class_dim],):
        raise ValueError(
            f"`alpha` must be a number or hold one number for each class along axis {max(class_dim, 0)} of `input`, of "
            f"shape {tuple(input.shape)}, got shape {tuple(alpha.shape)}"
        )
    return alpha.view([-1 if dim == class_dim else 1 for dim in range(input.dim())])


def _classes(input: Tensor) -> Tensor:
    """Class index of the two entries of each element."""
    class_dim = min(1, input.dim() - 1)
    if input.dim() < 2 or input.shape[class_dim] == 1:
        # Not torch.tensor([1, 0]): a copy from the host waits for the device.
        classes = torch.arange(1, -1, -1, device=input.device).view(2, *[1] * input.dim())
    else:
        classes = torch.arange(input.shape[1], device=input.device).view(1, 1, -1, *[1] * (input.dim() - 2))
    return classes.expand(2, *input.shape)


def _elementwise(input: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The target of each element, and whether it counts."""
    _check(input, ignore_index)
    if target.is_complex():
        raise TypeError(f"`target` must be real, got {target.dtype}")
    if target.shape != input.shape:
        raise ValueError(
            f"`target` must have the shape of `input`, {tuple(input.shape)}, one probability an element, got "
            f"shape {tuple(target.shape)}"
        )
    # A scalar of -100 would wrap around to 156 in uint8.
    target = target if target.is_floating_point() else target.long()
    return target, target != ignore_index


def _one_hot(input: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Class indices as one target an element, and whether it counts."""
    _check(input, ignore_index)
    check_class_indices(input, target)
    class_dim = min(1, input.dim() - 1)
    target = target.long().unsqueeze(class_dim)
    counted = target != ignore_index
    ones = torch.zeros_like(input, dtype=torch.int64).scatter(class_dim, target * counted, 1)
    return ones, counted.expand_as(ones)


def _check(input: Tensor, ignore_index: int) -> None:
    check_ignore_index(ignore_index)
    check_logits(input)
