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

_NO_REDUCTION = 0  # how ATen spells reduction="none"


def softmax_entries(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    precise: bool = False,
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
        precise: keep the relative accuracy of ``log_p`` and of its gradient as Pt nears 1, at the cost of one more
            pass over the classes. Otherwise they are those of torch's ``log_softmax``, which in float32 has nothing
            between 0 and -6e-8.

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
    log_p = torch.log_softmax(input, class_dim, dtype=compute_dtype)
    dtype = output_dtype(input, _loss_dtype(input, target, weight) if probabilities else None)
    single = not probabilities and label_smoothing == 0
    if precise and not single and num_classes > 0:
        # Below Pt = 1/2 nothing is lost, and only the likeliest class can be above.
        likeliest = log_p.argmax(class_dim, keepdim=True)
        lacks = _rounded_off(log_p, log_p.gather(class_dim, likeliest).squeeze(class_dim), likeliest, class_dim)
        log_p = log_p + torch.zeros_like(log_p).scatter(class_dim, likeliest, lacks.unsqueeze(class_dim))
    if weight is not None:
        weight = weight.to(log_p.dtype)

    if not probabilities:
        target = target.long()
        counted = target != ignore_index
        index = target * counted
        sample_weight = counted.to(compute_dtype)
        if weight is not None:
            # weight[index] waits for the device where index is a scalar, and has no vmap there.
            sample_weight = sample_weight * weight.gather(0, index.flatten()).view_as(index)
        denominator = sample_weight.sum()
        if single:
            # One operator gathers, masks what is ignored and refuses what is out of range. Called as torch.ops,
            # where nobody who replaces the functions of torch.nn.functional meets it.
            log_pt = -torch.ops.aten.nll_loss_nd(log_p, target, None, _NO_REDUCTION, ignore_index)
            if precise:
                lacks = _rounded_off(log_p, log_pt, index.unsqueeze(class_dim), class_dim)
                log_pt = log_pt + lacks.masked_fill(~counted, 0)
            return Entries(log_pt, sample_weight, index, denominator, None, dtype)
        ignored = ~counted.unsqueeze(class_dim)
        log_p = log_p.masked_fill(ignored, 0)
        share = torch.zeros_like(log_p).scatter(class_dim, index.unsqueeze(class_dim), 1 - label_smoothing)
        share = (share + label_smoothing / num_classes).masked_fill(ignored, 0)
    else:
        share = target.to(torch.promote_types(target.dtype, compute_dtype))
        denominator = log_p.new_full((), input.numel() / max(num_classes, 1))
        if label_smoothing > 0:
            share = share * (1 - label_smoothing) + label_smoothing / num_classes

    along_classes = [-1 if dim == class_dim else 1 for dim in range(input.dim())]
    if weight is not None:
        share = share * weight.view(along_classes)
    log_p = drop_impossible(log_p, share)
    classes = torch.arange(num_classes, device=input.device).view(along_classes).expand_as(log_p)
    return Entries(log_p, share, classes, denominator, class_dim, dtype)


def _loss_dtype(input: Tensor, target: Tensor, weight: Tensor | None) -> torch.dtype:
    """The dtype to which torch promotes its loss of probability targets."""
    dtype = torch.promote_types(input.dtype, target.dtype)
    return dtype if weight is None else torch.promote_types(dtype, weight.dtype)


def _rounded_off(log_p: Tensor, log_pt: Tensor, index: Tensor, class_dim: int) -> Tensor:
    """What ``log_pt`` lacks, the ``log_p`` at one class a sample, where Pt is above 1/2.

    In float32 log_softmax has nothing between 0 and -6e-8. The sum of all other Pt keeps every digit.
    """
    miss = log_p.exp().scatter(class_dim, index, 0).sum(class_dim)
    return (torch.log1p(-miss.clamp_max(0.5)) - log_pt).masked_fill(miss >= 0.5, 0)


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
