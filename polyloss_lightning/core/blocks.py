"""Large inputs are processed in blocks, so that temporaries stay small and in the cache."""

import itertools
import math
from typing import Any, TypeAlias

import torch
from torch import Tensor

from polyloss_lightning.core.entries import Entries, Plan

Block: TypeAlias = tuple[slice, ...]

# Minimum number of elements in a block: few enough to save memory and to stay in the cache, and many enough that the
# cost of starting an operation (some 5 microseconds on a CPU) is small.
SMALLEST = 1 << 14
_CACHE = 3 << 20  # bytes; with 2 << 20, logits with dimensions after the classes were measured to take 10 % longer
_ON_DEVICES = 1 << 22  # a guess: not measured on a GPU yet


def limit(input: Tensor, temporary_bytes: int) -> int | None:
    """Return how many elements of ``input`` to process at a time; None for all.

    On a CPU, the temporaries of a block (``temporary_bytes`` per element) take at most an eighth of the memory of the
    logits and fit into the cache, unless the block would then have fewer than ``SMALLEST`` elements.
    """
    if temporary_bytes == 0:
        return None
    size = _ON_DEVICES
    if input.is_cpu:
        size = max(SMALLEST, min(_CACHE, input.numel() * input.element_size() // 8) // temporary_bytes)
    return size if input.numel() >= 2 * size else None


def value_and_gradient(
    link: Any,
    input: Tensor,
    target: Tensor,
    plan: Plan,
    gradient: Tensor | None,
    observed: Entries | None,
    blocks: list[Block],
    values: Tensor | None,
) -> tuple[Tensor, Tensor | int]:
    """Return the losses, which are written to ``values``, or if that is None their sum; and the denominator."""
    # One vector for all sums: one small tensor kept per block would fragment the heap.
    sums = torch.empty(len(blocks), dtype=plan.dtype, device=input.device)
    total: Tensor | int = 0
    for i, block in enumerate(blocks):
        out = None if gradient is None else gradient[block]
        seen = None if observed is None else _slice_entries(observed, input, block)
        value, slope, denominator = link.slice(input, block).value_and_gradient(
            input[block], _slice(target, input, block), plan, out, seen
        )
        if out is not None and slope.data_ptr() != out.data_ptr():
            out.copy_(slope)
        if values is None:
            sums[i] = value.sum()
        else:
            values[block].copy_(value)
        total = total + denominator
        del value, slope  # the next block allocates its own
    return sums.sum() if values is None else values, total


def cut(shape: torch.Size, joint_dim: int | None, limit: int) -> list[Block]:
    """Return slices of at most ``limit`` elements that cover ``shape``, each with the whole of ``joint_dim``."""
    sizes, cuts = list(shape), [[slice(None)] for _ in shape]
    for dim in range(len(sizes)):
        step = max(1, sizes[dim] * limit // math.prod(sizes))
        if step < sizes[dim] and dim != joint_dim:
            cuts[dim] = [slice(start, start + step) for start in range(0, sizes[dim], step)]
            sizes[dim] = step
    return list(itertools.product(*cuts))


def _slice(tensor: Tensor, input: Tensor, block: Block) -> Tensor:
    """Slice ``tensor``, which has the dimensions of ``input``, one more in front, or all but that of the classes."""
    if tensor.dim() > input.dim():
        return tensor[(slice(None), *block)]
    return tensor[block if tensor.dim() == input.dim() else (*block[:1], *block[2:])[: tensor.dim()]]


def _slice_entries(entries: Entries, input: Tensor, block: Block) -> Entries:
    base = None if entries.focal_base is None else _slice(entries.focal_base, input, block)
    log_p, weight = _slice(entries.log_p, input, block), _slice(entries.weight, input, block)
    return entries._replace(log_p=log_p, weight=weight, focal_base=base)
