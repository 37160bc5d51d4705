"""The loss of the softmax of a linear layer, whose logits are computed a few rows at a time."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from polyloss_lightning.core import loss as losses
from polyloss_lightning.core.entries import Entries, Plan
from polyloss_lightning.core.loss import OnEntries, Reduction, is_in_torch_dispatch_mode, keeps_graph
from polyloss_lightning.core.polynomial import Polynomial
from polyloss_lightning.core.softmax import Softmax

Layer: TypeAlias = tuple[Tensor, Tensor, Tensor | None]  # input, weight and bias of a linear layer
Gradients: TypeAlias = Sequence[Tensor | None]

# Measured on one CPU thread: 128 rows take 1.1 times as long, 512 rows 0.9 to 1 times as long and twice the memory.
_ROWS = 256  # of the logits, to hold at a time
_FEW = 1 << 18  # logits that are held at once in any case
_BLOCK = 4  # rows whose loss is computed at a time, at least
_CACHE = 1 << 20  # bytes of logits whose loss is computed at a time, on a CPU
_ON_DEVICES = 1 << 26  # the same on a GPU: a guess that was not measured


class _Options(NamedTuple):
    """What the loss depends on beside the layer and the targets; ``dtype`` is that of the logits."""

    link: Softmax
    polynomial: Polynomial
    reduction: Reduction
    dtype: torch.dtype
    compute_dtype: torch.dtype


def linear_loss(
    link: Softmax,
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    polynomial: Polynomial,
    reduction: Reduction = "mean",
    on_entries: OnEntries = None,
) -> Tensor:
    r"""Compute :func:`~polyloss_lightning.core.loss.loss` of ``linear(input, linear_weight, linear_bias)``.

    If only eager reverse-mode autograd differentiates it, one autograd node computes the logits a few rows at a time,
    and at once their loss, its gradient :math:`g`, and from it :math:`g W`, :math:`g^\top x` and the sum of :math:`g`,
    the gradients of input, weight and bias, which are kept for backward. For ``"none"`` the gradient depends on what
    becomes of the losses, so backward computes the logits once more. Otherwise this is the loss of all logits.

    The graph of ``torch.compile`` breaks here, because compiled code would hold all logits; ``torch.export`` gets them.
    """
    if not _exports() and torch.compiler.is_compiling():
        return _in_plain_python(link, input, linear_weight, target, linear_bias, polynomial, reduction, on_entries)
    layer: Layer = (input, linear_weight, linear_bias)
    _check(*layer)
    if not _has_closed_form(link, layer, target):
        return losses.loss(link, logits(*layer), target, polynomial, reduction, on_entries)
    dtype = _autocast_dtype(input) or input.dtype
    # Logits without memory: they have nothing but a shape and a dtype.
    like = input.new_empty((), dtype=dtype).expand(*input.shape[:-1], linear_weight.shape[0])
    compute_dtype, loss_dtype = link.check(like, target)
    if input.dim() == 1:
        layer, target, like = (input.unsqueeze(0), linear_weight, linear_bias), target.unsqueeze(0), like.unsqueeze(0)
    if not torch.is_grad_enabled():
        layer = (layer[0].detach(), layer[1].detach(), None if layer[2] is None else layer[2].detach())
    options = _Options(link, polynomial, reduction, dtype, compute_dtype)
    seen = None if on_entries is None else link.empty_entries(like, target, Plan(polynomial, compute_dtype, 1.0, False))
    if target.shape == like.shape:
        denominator = target.new_full((), target.shape[0], dtype=compute_dtype)
    else:
        denominator = link.samples(target, 1, compute_dtype)[2].sum()
    loss: Tensor = _ClosedForm.apply(*layer, target, denominator, options, seen)
    if on_entries is not None and seen is not None:
        on_entries(seen._replace(denominator=denominator))
    if reduction == "none" and input.dim() == 1:
        loss = loss.squeeze(0)
    return loss if loss.dtype is loss_dtype else loss.to(loss_dtype)


# torch before 2.7 cannot be asked: there the compiler gets all logits.
_exports: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: True)
_in_plain_python: Callable[..., Tensor] = torch.compiler.disable(linear_loss)  # type: ignore[no-untyped-call]


def logits(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    """Return ``linear(input, linear_weight, linear_bias)``, for a weight of shape ``(C, D)`` or ``(C, ..., D)``."""
    bias = None if linear_bias is None else linear_bias.flatten()
    flat = F.linear(input, linear_weight.flatten(0, -2), bias)
    return flat.reshape(*input.shape[:-1], *linear_weight.shape[:-1])


def _check(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> None:
    shape = tuple(linear_weight.shape)
    if len(shape) < 2:
        raise ValueError(f"`linear_weight` must have shape (C, D), got shape {shape}")
    if input.dim() not in (1, 2) or input.shape[-1] != shape[-1]:
        raise ValueError(
            f"`input` must have shape (D) or (N, D) with D = {shape[-1]} for `linear_weight` of shape {shape}, got "
            f"shape {tuple(input.shape)}"
        )
    if linear_bias is not None and linear_bias.shape != shape[:-1]:
        raise ValueError(
            f"`linear_bias` must have shape {shape[:-1]} for `linear_weight` of shape {shape}, got shape "
            f"{tuple(linear_bias.shape)}"
        )


def _autocast_dtype(input: Tensor) -> torch.dtype | None:
    device = input.device.type
    enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if enabled else None


def _without_autocast(input: Tensor) -> AbstractContextManager[object]:
    # What multiplies here has its dtype already.
    return nullcontext() if _autocast_dtype(input) is None else torch.autocast(input.device.type, enabled=False)


def _has_closed_form(link: Softmax, layer: Layer, target: Tensor) -> bool:
    """Return True if only eager reverse-mode autograd differentiates, and by nothing but ``layer``."""
    input, weight, _ = layer
    if weight.dim() != 2 or weight.numel() == 0 or not losses.has_closed_form(link, input, target):
        return False
    tensors = [tensor for tensor in layer if tensor is not None]
    if any(type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors):
        return False
    if _autocast_dtype(input) is None:
        return all(tensor.dtype is input.dtype for tensor in tensors)
    # Autocast leaves float64 as it is.
    return all(tensor.dtype in (torch.float32, torch.float16, torch.bfloat16) for tensor in tensors)


class _ClosedForm(torch.autograd.Function):
    """The loss, with the gradients of the sum of all losses computed in forward."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        linear_weight: Tensor,
        linear_bias: Tensor | None,
        target: Tensor,
        denominator: Tensor,
        options: _Options,
        seen: Entries | None,
    ) -> Tensor:
        layer = (input, linear_weight, linear_bias)
        needed: tuple[bool, ...] = ctx.needs_input_grad[:3]
        in_forward = needed if options.reduction != "none" else (False, False, False)
        with _without_autocast(input):
            value, gradients = _value_and_gradients(layer, in_forward, target, options, seen=seen)
        factor = None  # of the gradients
        if options.reduction != "none":
            value = value.sum()
        if options.reduction == "mean":
            value, factor = losses.mean(value, denominator)
        if any(needed):
            ctx.options = options
            ctx.save_for_backward(*layer, target, factor, *gradients)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias, target, factor, *gradients = ctx.saved_tensors
        layer, options = (input, weight, bias), ctx.options
        needed: tuple[bool, ...] = ctx.needs_input_grad[:3]
        # This backward is to be differentiated itself, or is called for several gradients at once.
        if torch.is_grad_enabled() or losses.in_functorch() or losses.is_batched(grad):
            with _without_autocast(input), torch.enable_grad():
                return *_differentiable_gradients(layer, needed, target, options, grad), *[None] * 4
        if options.reduction == "none":
            with _without_autocast(input):
                _, gradients = _value_and_gradients(layer, needed, target, options, grad.unsqueeze(1))
        else:
            grad = grad if factor is None else grad * factor
            multiply = torch.mul if keeps_graph() else Tensor.mul_
            gradients = [None if each is None else multiply(each, grad) for each in gradients]
        cast = [
            None if each is None or of is None else each.to(of.dtype) for each, of in zip(gradients, layer, strict=True)
        ]
        return *cast, *[None] * 4


def _differentiable_gradients(
    layer: Layer, needed: Sequence[bool], target: Tensor, options: _Options, grad: Tensor
) -> Gradients:
    # Views, because the hooks of the tensors themselves come after this.
    views: Gradients = [None if each is None else each.view_as(each) for each in layer]
    in_dtype: Any = [None if each is None else each.to(options.dtype) for each in views]
    value = losses.loss(options.link, logits(*in_dtype), target, options.polynomial, options.reduction)
    wanted = [each for each, need in zip(views, needed, strict=True) if need and each is not None]
    found = iter(torch.autograd.grad(value.to(grad.dtype), wanted, grad, create_graph=True))
    return [next(found) if need else None for need in needed]


def _value_and_gradients(
    layer: Layer,
    needed: Sequence[bool],
    target: Tensor,
    options: _Options,
    grad: Tensor | None = None,
    seen: Entries | None = None,
) -> tuple[Tensor, Gradients]:
    """Return the loss of each sample, and the gradients of their sum by the tensors of the layer that need one.

    Args:
        layer: input, weight and bias.
        needed: which of them need a gradient.
        target: class indices or probabilities.
        options: what else the loss depends on.
        grad: factor of the loss of each sample, shape ``(N, 1)``; None stands for 1.
        seen: receives the log-probabilities and weights of the entries.
    """
    input, weight = layer[0].to(options.dtype), layer[1].to(options.dtype)
    bias = None if layer[2] is None else layer[2].to(options.dtype)
    (samples, num_classes), dtype = (input.shape[0], weight.shape[0]), options.compute_dtype
    value = input.new_empty(samples, dtype=dtype)
    d_input, d_weight, d_bias = [
        torch.empty_like(each, dtype=dtype) if each is not None and need else None
        for each, need in zip(layer, needed, strict=True)
    ]
    step = _rows(samples, num_classes)
    held = input.new_empty(step, num_classes)
    for start in range(0, samples, step):
        rows = slice(start, min(start + step, samples))
        x, g = input[rows], held[: rows.stop - start]
        if bias is None:
            torch.mm(x, weight.t(), out=g)
        else:
            torch.addmm(bias, x, weight.t(), out=g)
        entries = None if seen is None else _slice(seen, rows)
        value[rows] = _to_gradient(g, target[rows], options, None if grad is None else grad[rows], entries)
        if d_input is not None:
            d_input[rows] = torch.mm(g, weight)
        if d_weight is not None:
            _add(d_weight, g.t(), x, first=start == 0)
        if d_bias is not None:
            d_bias[:] = g.sum(0, dtype=dtype) + (0 if start == 0 else d_bias)
    return value, (d_input, d_weight, d_bias)


def _rows(samples: int, num_classes: int) -> int:
    """Return how many rows of the logits to hold at a time: parts of nearly the same size."""
    most = max(_ROWS, _FEW // num_classes)
    return math.ceil(samples / math.ceil(samples / most))


def _slice(entries: Entries, rows: slice) -> Entries:
    return entries._replace(log_p=entries.log_p[rows], weight=entries.weight[rows])


def _to_gradient(
    logits: Tensor, target: Tensor, options: _Options, grad: Tensor | None, seen: Entries | None
) -> Tensor:
    """Return the loss of each row, and overwrite the logits with its gradient."""
    link, polynomial, _, _, dtype = options
    # On the CPU a value can be read without waiting, but not while a dispatch mode may record the operations.
    plan = Plan(polynomial, dtype, 1.0, logits.is_cpu and not is_in_torch_dispatch_mode())
    values = []
    for rows in _blocks(logits, target, link, plan):
        entries = None if seen is None else _slice(seen, rows)
        value, gradient, _ = link.value_and_gradient(logits[rows], target[rows], plan, None, entries)
        logits[rows] = gradient if grad is None else gradient.mul_(grad[rows])
        values.append(value.squeeze(1))
        del gradient  # before the next one is allocated
    return torch.cat(values)


def _blocks(logits: Tensor, target: Tensor, link: Softmax, plan: Plan) -> list[slice]:
    """Cut the rows so that the temporaries of a block stay in the cache."""
    rows, num_classes = logits.shape
    row_bytes = (1 + link.temporaries(logits, target, plan)) * num_classes * plan.dtype.itemsize
    step = max(_BLOCK, (_CACHE if logits.is_cpu else _ON_DEVICES) // row_bytes)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _add(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """Add a product of matrices to ``total``, which holds nothing yet if it is the ``first`` one."""
    if total.dtype is left.dtype:
        torch.addmm(total, left, right, beta=0 if first else 1, out=total)
    elif first:
        total.copy_(left @ right)
    else:
        total += left @ right
