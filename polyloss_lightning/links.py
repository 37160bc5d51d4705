"""From logits and targets to the entries of a polynomial loss: log Pt, and the weight of each entry.

A link knows torch's rules for targets, weights and the denominator of ``mean``; it knows nothing of epsilon.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Entries(NamedTuple):
    """What enters the polynomial: one log-probability an entry, and how much it counts.

    Attributes:
        log_p: log-probability of each entry, float32 or float64; 0 where the target is ignored.
        weight: factor of each entry in the loss (class weight, soft target, smoothing); 0 where ignored.
        target: class index of each entry.
        denominator: scalar by which ``mean`` divides.
        class_dim: the axis over which entries are summed into one loss a sample; None if there is none.
        dtype: dtype of the loss, as torch's own loss has it.
    """

    log_p: Tensor
    weight: Tensor
    target: Tensor
    denominator: Tensor
    class_dim: int | None
    dtype: torch.dtype


def softmax_entries(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Entries:
    """Entries of a softmax loss: torch's ``cross_entropy`` up to the polynomial.

    Class-index targets without smoothing give one entry a sample. Probability targets and smoothing give
    one entry a sample and class, weighted by ``q * weight``.

    Args:
        input: logits, shape ``(C)``, ``(N, C)`` or ``(N, C, d1, ..., dk)``.
        target: class indices of the shape of ``input`` without the class axis, or probabilities of its shape.
        weight: class weights, shape ``(C)``.
        ignore_index: class index whose entries do not count; for class indices only.
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1].

    Raises:
        TypeError: if a dtype is not one that ``torch.nn.functional.cross_entropy`` takes.
        ValueError: if shapes or options do not fit each other.
    """
    class_dim = min(1, input.dim() - 1)
    probabilities = input.shape == target.shape
    _check(input, target, weight, class_dim, probabilities)
    if probabilities and ignore_index >= 0:
        raise ValueError(f"`ignore_index` has no meaning for probability targets, got {ignore_index}")
    num_classes = input.shape[class_dim]
    # In bf16, 1 - Pt is already 0 at a logit gap of 7: everything below runs in float32 at least.
    compute_dtype = torch.promote_types(input.dtype, torch.float32)
    log_p = torch.log_softmax(input, class_dim, dtype=compute_dtype)
    if weight is not None:
        weight = weight.to(log_p)

    if not probabilities:
        target = target.long()
        ignored = target == ignore_index
        index = target.masked_fill(ignored, 0)
        sample_weight = torch.ones_like(index, dtype=compute_dtype) if weight is None else weight[index]
        sample_weight = sample_weight.masked_fill(ignored, 0)
        denominator = sample_weight.sum()
        if label_smoothing == 0:
            log_p = log_p.gather(class_dim, index.unsqueeze(class_dim)).squeeze(class_dim).masked_fill(ignored, 0)
            return Entries(log_p, sample_weight, index, denominator, None, _output_dtype(input))
        ignored = ignored.unsqueeze(class_dim)
        log_p = log_p.masked_fill(ignored, 0)
        share = torch.zeros_like(log_p).scatter(class_dim, index.unsqueeze(class_dim), 1 - label_smoothing)
        share = (share + label_smoothing / num_classes).masked_fill(ignored, 0)
    else:
        share = target.to(compute_dtype)
        denominator = log_p.new_full((), input.numel() / max(num_classes, 1))
        if label_smoothing > 0:
            share = share * (1 - label_smoothing) + label_smoothing / num_classes

    along_classes = [-1 if dim == class_dim else 1 for dim in range(input.dim())]
    if weight is not None:
        share = share * weight.view(along_classes)
    # A class masked with a logit of -inf and given no probability must not turn the loss into 0 * inf.
    log_p = log_p.masked_fill((log_p == -torch.inf) & (share == 0), 0)
    classes = torch.arange(num_classes, device=input.device).view(along_classes).expand_as(log_p)
    return Entries(log_p, share, classes, denominator, class_dim, _output_dtype(input))


def _check(input: Tensor, target: Tensor, weight: Tensor | None, class_dim: int, probabilities: bool) -> None:
    if not input.is_floating_point():
        raise TypeError(f"`input` must hold floating-point logits, got {input.dtype}")
    if input.dim() == 0:
        raise ValueError("`input` must have a class axis: shape (C), (N, C) or (N, C, d1, ..., dk), got a scalar")
    num_classes = input.shape[class_dim]
    if probabilities:
        if not target.is_floating_point():
            raise TypeError(
                f"`target` has the shape of `input`, {tuple(input.shape)}, so it must hold class probabilities in a "
                f"floating-point dtype, got {target.dtype}"
            )
    else:
        expected = input.shape[:class_dim] + input.shape[class_dim + 1 :]
        if target.shape != expected:
            raise ValueError(
                f"`target` must hold class indices of shape {tuple(expected)} or probabilities of shape "
                f"{tuple(input.shape)} for `input` of shape {tuple(input.shape)}, got shape {tuple(target.shape)}"
            )
        if target.dtype not in (torch.int64, torch.uint8):
            raise TypeError(f"`target` must hold class indices as torch.int64 or torch.uint8, got {target.dtype}")
    if weight is not None and weight.shape != (num_classes,):
        raise ValueError(
            f"`weight` must have shape ({num_classes},), one entry a class, got shape {tuple(weight.shape)}"
        )


def _output_dtype(input: Tensor) -> torch.dtype:
    """The dtype in which torch's own loss comes back: float32 under autocast, else that of ``input``."""
    device_type = input.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.promote_types(input.dtype, torch.float32)
    return input.dtype
