"""The softmax link: torch's rules of ``cross_entropy`` up to the polynomial."""

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
from polyloss_lightning.links.log_softmax import exact_log_softmax, exact_log_softmax_at
from polyloss_lightning.links.tracing import constant


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
    check_ignore_index(ignore_index)
    _check(input, target, weight, class_dim, probabilities)
    if probabilities and ignore_index >= 0:
        raise ValueError(f"`ignore_index` has no meaning for probability targets, got {ignore_index}")
    num_classes = input.shape[class_dim]
    # In bf16, 1 - Pt is already 0 at a logit gap of 7: everything below runs in float32 at least.
    compute_dtype = torch.promote_types(input.dtype, torch.float32)
    dtype = output_dtype(input, _loss_dtype(input, target, weight) if probabilities else None)
    if weight is not None:
        weight = weight.to(compute_dtype)

    if not probabilities:
        target = target.long()
        counted = target != ignore_index
        index = target * counted
        sample_weight = counted.to(compute_dtype)
        if weight is not None:
            # weight[index] waits for the device where index is a scalar, and has no vmap there.
            sample_weight = sample_weight * weight.gather(0, index.flatten()).view_as(index)
        denominator = sample_weight.sum()
        if label_smoothing == 0:
            log_pt = exact_log_softmax_at(input, index, class_dim, compute_dtype).masked_fill(~counted, 0)
            return Entries(log_pt, sample_weight, index, denominator, None, dtype)
    u = None
    if label_smoothing > 0:
        # With a share in every class no loss comes near 0: there is nothing that rounding could take away.
        log_p = torch.log_softmax(input, class_dim, dtype=compute_dtype)
    else:
        log_p, u = exact_log_softmax(input, class_dim, compute_dtype)
    if not probabilities:
        counted = counted.unsqueeze(class_dim)
        log_p = log_p.masked_fill(~counted, 0)
        spread = label_smoothing / num_classes
        share = torch.full_like(log_p, spread, requires_grad=False)
        share = share.scatter(class_dim, index.unsqueeze(class_dim), spread + 1 - label_smoothing) * counted
    else:
        share = target.to(torch.promote_types(target.dtype, compute_dtype))
        denominator = log_p.new_full((), input.numel() / max(num_classes, 1))
        if label_smoothing > 0:
            share = share * (1 - label_smoothing) + label_smoothing / num_classes

    along_classes = [-1 if dim == class_dim else 1 for dim in range(input.dim())]
    if weight is not None:
        share = share * weight.view(along_classes)
    if probabilities or weight is not None:  # otherwise every class of a sample that counts has a share
        log_p = drop_impossible(log_p, share)
    classes = torch.arange(num_classes, device=input.device).view(along_classes).expand_as(log_p)
    return Entries(log_p, share, classes, denominator, class_dim, dtype, u=u)


def softmax_axes(
    input: Tensor, target: Tensor, *, weight: Tensor | None = None, label_smoothing: float = 0.0, **_: object
) -> tuple[int, ...]:
    """Axes of ``input`` along which :func:`softmax_entries` may be cut; none if there is but one entry a sample.

    It takes the options of :func:`softmax_entries`.
    """
    one_a_sample = input.shape != target.shape and label_smoothing == 0
    if one_a_sample or input.dim() < 2 or not constant(weight):
        return ()
    return (0, *range(2, input.dim()))


def _loss_dtype(input: Tensor, target: Tensor, weight: Tensor | None) -> torch.dtype:
    """The dtype to which torch promotes its loss of probability targets."""
    dtype = torch.promote_types(input.dtype, target.dtype)
    return dtype if weight is None else torch.promote_types(dtype, weight.dtype)


def _check(input: Tensor, target: Tensor, weight: Tensor | None, class_dim: int, probabilities: bool) -> None:
    check_logits(input)
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
        check_class_indices(input, target, f" or probabilities of shape {tuple(input.shape)}")
    if weight is not None and weight.shape != (num_classes,):
        raise ValueError(
            f"`weight` must have shape ({num_classes},), one entry a class, got shape {tuple(weight.shape)}"
        )
