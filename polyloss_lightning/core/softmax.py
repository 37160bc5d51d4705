"""The softmax link: torch's rules of ``cross_entropy`` up to the polynomial."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from polyloss_lightning._checks import as_number, check_integer
from polyloss_lightning.core.entries import Entries, Plan, autocast_dtype, drop_impossible, refuse_target, view_along
from polyloss_lightning.core.softmax_gradient import every_class, one_class, one_class_smoothed

_CONFIDENT = 0.55  # above 1/2, so that rounding cannot make two classes of a sample confident


class Softmax(NamedTuple):
    """Classes that exclude each other, as in :func:`torch.nn.functional.cross_entropy`.

    Class-index targets without smoothing give one entry per sample. Probability targets and smoothing give one entry
    per sample and class, weighted by ``q * weight``.

    Args:
        weight: class weights, shape ``(C)``.
        ignore_index: class index whose entries do not count; for class indices only.
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1].
    """

    weight: Tensor | None = None
    ignore_index: int = -100
    label_smoothing: float = 0.0

    def check_options(self) -> None:
        """Raise ``TypeError`` or ``ValueError`` if an option is out of its range."""
        check_integer("ignore_index", self.ignore_index)
        as_number("label_smoothing", self.label_smoothing, "a number in [0, 1]", "in [0, 1]", at_least=0, at_most=1)

    def check(self, input: Tensor, target: Tensor) -> tuple[torch.dtype, torch.dtype]:
        """Return the dtypes of the computation and of the loss; raise if ``input`` and ``target`` do not fit."""
        if not input.is_floating_point():
            raise TypeError(f"`input` must hold floating-point logits, got {input.dtype}")
        if input.dim() == 0:
            raise ValueError("`input` must have a class axis: shape (C), (N, C) or (N, C, d1, ..., dk), got a scalar")
        dim, dtype = min(1, input.dim() - 1), input.dtype
        compute_dtype = torch.promote_types(dtype, torch.float32)  # in bf16, 1 - Pt is already 0 at a logit gap of 7
        num_classes = input.shape[dim]
        if self.weight is not None and self.weight.shape != (num_classes,):
            raise ValueError(
                f"`weight` must have shape ({num_classes},), one entry per class, got shape {tuple(self.weight.shape)}"
            )
        if input.shape != target.shape:
            indices = target.dtype is torch.int64 or target.dtype is torch.uint8
            if not indices or target.shape != input.shape[:dim] + input.shape[dim + 1 :]:
                refuse_target(input, target, f" or probabilities of shape {tuple(input.shape)}")
        elif not target.is_floating_point():
            raise TypeError(
                f"`target` has the shape of `input`, {tuple(input.shape)}, so it must hold class probabilities in a "
                f"floating-point dtype, got {target.dtype}"
            )
        elif self.ignore_index >= 0:
            raise ValueError(f"`ignore_index` has no meaning for probability targets, got {self.ignore_index}")
        else:  # torch's loss of probabilities is promoted to the dtypes of all arguments
            dtype, compute_dtype = (torch.promote_types(each, target.dtype) for each in (dtype, compute_dtype))
            dtype = dtype if self.weight is None else torch.promote_types(dtype, self.weight.dtype)
        return compute_dtype, dtype if dtype is torch.float32 else autocast_dtype(input, dtype)

    def temporaries(self, input: Tensor, target: Tensor, plan: Plan) -> int:
        """Return how many tensors of the size of the logits the closed form holds at a time, beside the gradient."""
        half, poly1 = int(input.dtype is not plan.dtype), plan.polynomial.is_poly1()
        if input.shape == target.shape or not (self.label_smoothing == 0 or (self.weight is None and poly1)):
            return (4 if poly1 else 8) + 2 * half
        rows = input.dim() == 2 and input.is_contiguous()  # otherwise blocks of the logits pay: they stay in the cache
        return 3 * int(not rows) + 2 * half

    def slice(self, input: Tensor, block: tuple[slice, ...]) -> "Softmax":
        """Return the link of one block of ``input``."""
        return self

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """Return the entries, one per class or, with size 1 along the classes, one per sample."""
        compute_dtype, dtype = self.check(input, target)
        dim, probabilities = min(1, input.dim() - 1), input.shape == target.shape
        one_minus_p = index = ignored = None
        if self.label_smoothing > 0:
            # Every class has a weight, so no loss comes near 0 and rounding takes nothing away.
            log_p = torch.log_softmax(input, dim, dtype=compute_dtype)
        else:
            log_p, one_minus_p = exact_log_softmax(input, dim, compute_dtype)
        if probabilities:
            denominator = log_p.new_full((), input.numel() / max(input.shape[dim], 1))
        else:
            index, ignored, weight = self.samples(target, dim, compute_dtype)
            denominator = weight.sum()
            if self.label_smoothing == 0:
                log_pt = log_p.gather(dim, index).masked_fill(ignored, 0)
                return Entries(log_pt, weight, index, denominator, dim, dtype)
            log_p = log_p.masked_fill(ignored, 0)
        shares = self._shares(log_p, target, index, ignored, dim)
        log_p = drop_impossible(log_p, shares)
        return Entries(log_p, shares, _classes(input, dim), denominator, dim, dtype, one_minus_p=one_minus_p)

    def empty_entries(self, input: Tensor, target: Tensor, plan: Plan) -> Entries:
        """Return entries with the shapes of :meth:`entries`, to be filled in by :meth:`value_and_gradient`."""
        dim, dtype = min(1, input.dim() - 1), plan.dtype
        one_class = input.shape != target.shape and self.label_smoothing == 0
        index = self.samples(target, dim, dtype)[0] if one_class else _classes(input, dim)
        log_p, weight = (input.new_empty(index.shape, dtype=dtype) for _ in range(2))
        return Entries(log_p, weight, index, log_p.new_empty(()), dim, dtype)

    def samples(self, target: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return the class index of each sample, whether it is ignored, and its weight, with size 1 along ``dim``."""
        target = target.long().unsqueeze(dim)
        ignored = target == self.ignore_index
        index = target.masked_fill(ignored, 0)
        if self.weight is None:
            return index, ignored, (~ignored).to(dtype)
        # weight[index] waits for the device if the index is a scalar, and has no vmap there.
        weight = self.weight.to(dtype).gather(0, index.flatten()).view_as(index)
        return index, ignored, weight * ~ignored

    def _shares(self, like: Tensor, target: Tensor, index: Tensor | None, ignored: Tensor | None, dim: int) -> Tensor:
        """Return the weight of each class in the loss of its sample: q times the class weight, 0 if ignored."""
        spread = self.label_smoothing / max(like.shape[dim], 1)
        if index is None:
            shares = target.to(like.dtype)
            if self.label_smoothing > 0:
                shares = shares * (1 - self.label_smoothing) + spread
        else:
            shares = torch.full_like(like, spread, requires_grad=False)
            shares = shares.scatter(dim, index, spread + 1 - self.label_smoothing)
        if self.weight is not None:
            shares = shares * view_along(self.weight.to(like.dtype), like, dim)
        return shares if ignored is None else shares * ~ignored

    def value_and_gradient(
        self, input: Tensor, target: Tensor, plan: Plan, out: Tensor | None = None, observed: Entries | None = None
    ) -> tuple[Tensor, Tensor, Tensor | int]:
        """Compute the loss of each sample and its gradient in closed form, for an input and a target that were checked.

        Return the losses, with size 1 along the dimension of the classes; the derivative of their sum by the logits,
        times the scale, in ``out`` if that has its dtype; and the denominator of ``mean``, a number if all samples
        count alike. The log-probabilities and weights of the entries are written to those of ``observed``.
        """
        dim, probabilities, dtype = min(1, input.dim() - 1), input.shape == target.shape, plan.dtype
        channels_last = input.dim() > 2 and input.stride(1) == 1
        log_p, shares = (None, None) if observed is None else (observed.log_p, observed.weight)
        if channels_last:  # over the last dimension, torch computes a softmax without rearranging the logits
            input, dim = input.movedim(1, -1), input.dim() - 1
            target = target.movedim(1, -1) if probabilities else target
            out, log_p, shares = (None if each is None else each.movedim(1, -1) for each in (out, log_p, shares))
        in_place = out is not None and out.is_contiguous() and out.dtype == input.dtype == dtype
        p = torch.softmax(input, dim, out=out) if in_place else torch.softmax(input, dim, dtype)
        index = ignored = weight = None
        if not probabilities:
            ignore = self.ignore_index
            if plan.read and self.weight is None and not target.min().item() <= ignore <= target.max().item():
                index = target.long().unsqueeze(dim)
            else:
                index, ignored, weight = self.samples(target, dim, dtype)
        denominator = p.numel() // p.shape[dim] if weight is None else weight.sum()
        if index is not None and self.label_smoothing == 0:
            value = one_class(input, p, dim, index, weight, plan, log_p)
        elif index is not None and self.weight is None and plan.polynomial.is_poly1():
            value = one_class_smoothed(input, p, dim, index, weight, plan, self.label_smoothing, log_p, shares)
            weight = shares
        else:
            weight = self._shares(p, target, index, ignored, dim)
            value = every_class(input, p, dim, weight, plan, log_p)
        if ignored is not None:  # their logits may be NaN, which a weight of 0 does not remove
            value = value.masked_fill(ignored, 0)
        if shares is not None and weight is not shares:
            shares.fill_(1) if weight is None else shares.copy_(weight)
        if log_p is not None and ignored is not None:
            log_p.masked_fill_(ignored, 0)
        if channels_last:
            value, p = value.movedim(-1, 1), p.movedim(-1, 1)
        return value, p, denominator


def _classes(input: Tensor, dim: int) -> Tensor:
    return view_along(torch.arange(input.shape[dim], device=input.device), input, dim).expand_as(input)


def exact_log_softmax(input: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r"""``torch.log_softmax`` and 1 - P, with full relative accuracy even if P is near 1.

    In float32, torch's has nothing between 0 and -6e-8. Here the log-probability of a class with P above 0.55 is
    :math:`\log(1 - \sum_{k \ne t} P_k)`, whose sum keeps every digit, and so do the gradients.
    """
    log_p = torch.log_softmax(input, dim, dtype=dtype)
    p, confident = log_p.exp(), log_p > math.log(_CONFIDENT)
    rest = torch.where(confident, 0, p).sum(dim, keepdim=True)
    # If no class is confident, the rest is 1, and the slope of log1p at -1 would turn a factor of 0 into NaN.
    log_p = torch.where(confident, torch.log1p(-torch.where(rest < 0.5, rest, 0.5)), log_p)
    return log_p, torch.where(confident, rest, 1 - p)
