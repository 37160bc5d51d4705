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
from polyloss_lightning.reduction import Reduction, conclude, per_sample, reduce

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

    A large input is done block by block, each with its gradient, so that autograd keeps one tensor of its size instead
    of up to eighteen. The numbers are the same.

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
    dtype = _dtype_of_loss(link, input, target) if len(blocks) > 1 else None
    if dtype is None:
        entries = link(input, target)
        if observe is not None:
            observe(entries)
        return reduce(value(entries), entries, reduction)
    if observe is not None:
        with torch.no_grad():
            observe(link(input, target))
    differentiable = input if torch.is_grad_enabled() else input.detach()
    loss, denominator = _InBlocks.apply(differentiable, target, link, value, blocks)
    return conclude(loss, denominator, dtype, reduction)


def _dtype_of_loss(link: Link, input: Tensor, target: Tensor) -> torch.dtype | None:
    """Dtype of the loss; None if an argument does not fit: the link says so best, of the whole."""
    try:
        with torch.no_grad():
            return link(input[:0], target[:0]).dtype
    except (TypeError, ValueError):
        return None


def _blocks(input: Tensor, target: Tensor, axes: Axes | None) -> list[Block]:
    """Where to cut ``input``; no or one block if it is to stay in one piece."""
    if axes is None or not plain_autograd(input, target) or target.requires_grad:
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


def _without_class_axis(block: Block) -> Block:
    return (block[0], *block[2:])


def _no_hooks() -> AbstractContextManager[object]:
    """What a block saves stays here: to the hooks of activation checkpointing it would be a reason to run again."""
    if not torch._C._autograd._saved_tensors_hooks_is_enabled():  # type: ignore[attr-defined]
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


class _InBlocks(torch.autograd.Function):
    """Losses one a sample, their gradient found with them, and the denominator of the mean."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        link: Link,
        value: Callable[[Entries], Tensor],
        blocks: list[Block],
    ) -> tuple[Tensor, Tensor]:
        ctx.link, ctx.value = link, value
        ctx.set_materialize_grads(False)
        dtype = torch.promote_types(input.dtype, torch.float32)
        # A float16 would lose what a GradScaler is there to keep.
        slope = torch.empty_like(input, dtype=dtype if input.dtype == torch.float16 else None)
        loss: Tensor | None = None
        denominators = []
        for block in blocks:
            of_target = block if target.shape == input.shape else _without_class_axis(block)
            with torch.set_grad_enabled(ctx.needs_input_grad[0]), _no_hooks():
                piece = input[block].detach().to(dtype).requires_grad_(ctx.needs_input_grad[0])
                entries = link(piece, target[of_target])
                result = per_sample(value(entries), entries)
                total = result.sum()
            denominators.append(entries.denominator.detach())
            of_loss = block if result.dim() == input.dim() else _without_class_axis(block)
            if loss is None:
                shape = input.shape if result.dim() == input.dim() else (*input.shape[:1], *input.shape[2:])
                loss = result.new_empty(shape)
            loss[of_loss] = result.detach()
            if ctx.needs_input_grad[0]:
                (slope[block],) = torch.autograd.grad(total, piece)
        assert loss is not None
        denominator = torch.stack(denominators).sum()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(input, target, slope, denominator)
        ctx.mark_non_differentiable(denominator)
        return loss, denominator

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        input, target, slope, denominator = ctx.saved_tensors
        if grad_loss is None:
            return None, None, None, None, None
        if torch.is_grad_enabled():  # this backward is to be differentiated itself
            alias = input.view_as(input)  # the hooks of the input itself come after this
            entries = ctx.link(alias, target)
            loss = per_sample(ctx.value(entries), entries)
            (grad,) = torch.autograd.grad(loss, alias, grad_loss, create_graph=True)
            return grad, None, None, None, None
        # A mean of nothing: the loss is NaN and its gradient infinite, but none of that reaches the logits.
        grad_loss = grad_loss.masked_fill(denominator == 0, 0)
        grad_loss = grad_loss if grad_loss.dim() == slope.dim() else grad_loss.unsqueeze(1)
        return (slope * grad_loss).to(input.dtype), None, None, None, None
