"""From logits and target to the loss: in one piece, or block by block where they are large."""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor

from polyloss_lightning import polynomial
from polyloss_lightning.links import Entries
from polyloss_lightning.links.tracing import plain_autograd
from polyloss_lightning.reduction import Reduction, reduce

Link: TypeAlias = Callable[[Tensor, Tensor], Entries]
Axes: TypeAlias = Callable[[Tensor, Tensor], Sequence[int]]
Block: TypeAlias = tuple[slice, ...]

# Elements done at a time: few enough to save memory, and many enough to keep a device (or a core) busy.
_BLOCK = {"cpu": 1 << 17}
_BLOCK_OF_DEVICES = 1 << 22


def evaluate(
    link: Link,
    input: Tensor,
    target: Tensor,
    epsilon: Sequence[float],
    reduction: Reduction,
    *,
    gamma: float = 0.0,
    num_terms: int | None = None,
    axes: Axes | None = None,
    observe: Callable[[Entries], None] | None = None,
) -> Tensor:
    """The loss of ``input`` and ``target``.

    A large input is done block by block, each with its gradient: beside the logits and the target, which are not to be
    overwritten until then, one tensor of their size waits for backward. In one piece it is up to eighteen.

    Args:
        link: from logits and target to entries.
        input: logits.
        target: what ``link`` takes.
        epsilon: perturbation of the first coefficients, one number each.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        gamma: focusing exponent, at least 0.
        num_terms: keep only the first terms of the series; None keeps all.
        axes: tells along which axes of ``input`` the ``link`` of a part is the part of its ``link``; None: along none.
        observe: called with the entries.
    """
    epsilon = tuple(epsilon)

    def value(entries: Entries) -> Tensor:
        return polynomial.value(entries.log_p, epsilon, gamma, num_terms, entries.miss, entries.u)

    blocks = _blocks(input, target, axes)
    dtype = _dtype_of_loss(link, input, target, blocks[0]) if len(blocks) > 1 else None
    if dtype is None:
        entries = link(input, target)
        if observe is not None:
            observe(entries)
        return reduce(value(entries), entries, reduction)
    if observe is not None:
        with torch.no_grad():
            observe(link(input, target))
    differentiable = input if torch.is_grad_enabled() else input.detach()
    loss: Tensor = _InBlocks.apply(differentiable, target, link, value, reduction, blocks)
    return loss.to(dtype)


def _dtype_of_loss(link: Link, input: Tensor, target: Tensor, block: Block) -> torch.dtype | None:
    """Dtype of the loss; None if an argument does not fit: the link says so best, of the whole."""
    nothing = tuple(part if part == slice(None) else slice(0) for part in block)
    try:
        with torch.no_grad():
            return link(input[nothing], _part(target, input, nothing)).dtype
    except (TypeError, ValueError):
        return None


def _blocks(input: Tensor, target: Tensor, axes: Axes | None) -> list[Block]:
    """Where to cut ``input``; no or one block if it is to stay in one piece."""
    if axes is None or not plain_autograd(input, target) or target.requires_grad or target.is_inference():
        return []
    if target.shape not in (input.shape, input.shape[:1] + input.shape[2:]):
        return []  # it does not fit: the link says so best
    limit = _BLOCK.get(input.device.type, _BLOCK_OF_DEVICES)
    if input.numel() < 2 * limit:
        return []
    sizes = list(input.shape)
    cuts = [[slice(None)] for _ in sizes]
    for axis in axes(input, target):
        step = max(1, sizes[axis] * limit // math.prod(sizes))
        if step < sizes[axis]:
            cuts[axis] = [slice(start, start + step) for start in range(0, sizes[axis], step)]
            sizes[axis] = step
    return list(itertools.product(*cuts))


def _part(tensor: Tensor, input: Tensor, block: Block) -> Tensor:
    """The block of ``tensor``, which may lack the class axis that ``input`` has."""
    return tensor[block if tensor.dim() == input.dim() else (block[0], *block[2:])]


def _no_hooks() -> AbstractContextManager[object]:
    """What a block saves stays here: to the hooks of activation checkpointing it would be a reason to run again."""
    if not torch._C._autograd._saved_tensors_hooks_is_enabled():  # type: ignore[attr-defined]
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


class _InBlocks(torch.autograd.Function):
    """The loss, and with it the gradient of each sample's own part of it."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        link: Link,
        value: Callable[[Entries], Tensor],
        reduction: Reduction,
        blocks: list[Block],
    ) -> Tensor:
        ctx.link, ctx.value, ctx.reduction = link, value, reduction
        differentiable: bool = ctx.needs_input_grad[0]
        dtype = torch.promote_types(input.dtype, torch.float32)
        # A float16 would lose what a GradScaler is there to keep.
        slope_dtype = dtype if input.dtype == torch.float16 else input.dtype
        slope = torch.empty_like(input, dtype=slope_dtype) if differentiable else None
        loss: Tensor | None = None
        sums, denominators = [], []
        for block in blocks:
            with torch.set_grad_enabled(differentiable), _no_hooks():
                piece = input[block].detach().to(dtype).requires_grad_(differentiable)
                entries = link(piece, _part(target, input, block))
                entries = entries._replace(dtype=entries.log_p.dtype)
                part = reduce(value(entries), entries, "none" if reduction == "none" else "sum")
                total = part.sum()
            sums.append(total.detach())
            denominators.append(entries.denominator.detach())
            if reduction == "none":
                if loss is None:
                    class_axis = 1 if part.dim() < input.dim() else input.dim()
                    loss = part.new_empty(input.shape[:class_axis] + input.shape[class_axis + 1 :])
                _part(loss, input, block).copy_(part.detach())
            if slope is not None:
                (slope[block],) = torch.autograd.grad(total, piece)
        total, denominator = torch.stack(sums).sum(), torch.stack(denominators).sum()
        if slope is not None:
            ctx.save_for_backward(input, target, slope, denominator, (total == 0) & (denominator == 0))
        if loss is not None:
            return loss
        return total / denominator if reduction == "mean" else total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, target, slope, denominator, nothing = ctx.saved_tensors
        if torch.is_grad_enabled():  # this backward is to be differentiated itself
            alias = input.view_as(input)  # the hooks of the input itself come after this
            entries = ctx.link(alias, target)
            loss = reduce(ctx.value(entries), entries._replace(dtype=grad.dtype), ctx.reduction)
            return *torch.autograd.grad(loss, alias, grad, create_graph=True), None, None, None, None, None
        if ctx.reduction == "mean":
            # Of nothing the mean is NaN and its gradient infinite, but none of that reaches the logits.
            grad = (grad / denominator).masked_fill(nothing, 0)
        elif ctx.reduction == "none" and grad.dim() < slope.dim():
            grad = grad.unsqueeze(1)
        return (slope * grad).to(input.dtype), None, None, None, None, None
