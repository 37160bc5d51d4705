"""The loss: a link, the polynomial and a reduction, as the formula or as one autograd node with a closed form."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _python_dispatch

from polyloss_lightning.core import blocks
from polyloss_lightning.core.entries import Entries, Plan
from polyloss_lightning.core.polynomial import Polynomial, value
from polyloss_lightning.core.sigmoid import Sigmoid
from polyloss_lightning.core.softmax import Softmax

Reduction: TypeAlias = Literal["none", "mean", "sum"]
OnEntries: TypeAlias = Callable[[Entries], None] | None
REDUCTIONS = get_args(Reduction)  # outside of the functions, because torch.compile of torch 2.6 cannot trace it
# If torch lacks one of these private names, the formula is used, which is always right.
_tracing_state: Callable[[], object] = getattr(torch._C, "_get_tracing_state", lambda: "unknown")
in_functorch: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
# If this one is missing, no value is read, as under a dispatch mode.
is_in_torch_dispatch_mode: Callable[[], bool] = getattr(_python_dispatch, "is_in_torch_dispatch_mode", lambda: True)
# If this one is missing, the gradient is multiplied out of place, which takes twice the memory.
keeps_graph: Callable[[], bool] = getattr(
    getattr(torch._C, "_autograd", None), "_get_current_graph_task_keep_graph", lambda: True
)
# If this one is missing, a backward pass for a batch of gradients (`is_grads_batched`) fails.
is_batched: Callable[[Tensor], bool] = getattr(
    getattr(torch._C, "_functorch", None), "is_legacy_batchedtensor", lambda grad: False
)


class Link(Protocol):
    """Turns logits and target into entries."""

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """Return the log-probability and the weight of each entry."""


def loss(
    link: Link,
    input: Tensor,
    target: Tensor,
    polynomial: Polynomial,
    reduction: Reduction = "mean",
    on_entries: OnEntries = None,
) -> Tensor:
    r"""Compute :math:`\sum_i w_i V(\log p_i)`, reduced, over the entries :math:`(\log p_i, w_i)` of ``link``.

    The formula is ``reduce([link.entries(input, target)], polynomial, reduction)``. If only eager reverse-mode autograd
    differentiates it, one autograd node computes the loss and its gradient together in closed form, block by block:
    only one extra tensor the size of the logits is kept for backward (the formula keeps up to 18). Do not modify input
    or target in place before backward. ``on_entries`` is called with the detached entries of the whole input.
    """
    if not has_closed_form(link, input, target):
        if torch.compiler.is_compiling() or not type(input).__module__.startswith("torch.distributed.tensor"):
            return _formula(link, input, target, polynomial, reduction, on_entries)
        from torch.distributed.tensor.experimental import implicit_replication

        with implicit_replication():  # of the plain tensors that meet a DTensor
            return _formula(link, input, target, polynomial, reduction, on_entries)
    closed: Any = link
    compute_dtype, dtype = closed.check(input, target)
    # On the CPU a value can be read without waiting, but not while a dispatch mode may record the operations.
    read = input.is_cpu and not is_in_torch_dispatch_mode()
    count, hard, ignored = input.numel(), False, True
    if type(link) is Softmax:  # one loss per sample, otherwise one per element
        count //= input.shape[min(1, input.dim() - 1)]
    else:
        hard, ignored = closed.survey(target, read)
    plan = Plan(polynomial, compute_dtype, 1 / count if reduction == "mean" else 1.0, read, hard, ignored)
    observed: Any = None if on_entries is None else closed.empty_entries(input, target, plan)
    logits = input if torch.is_grad_enabled() else input.detach()
    result: Tensor = _ClosedForm.apply(logits, target, closed, plan, reduction, observed)
    if on_entries is not None:
        on_entries(observed)
    return result if result.dtype == dtype else result.to(dtype)


def _formula(
    link: Link, input: Tensor, target: Tensor, polynomial: Polynomial, reduction: Reduction, on_entries: OnEntries
) -> Tensor:
    parts = link.parts(input, target) if on_entries is None and type(link) is Sigmoid else [link.entries(input, target)]
    if on_entries is not None:
        on_entries(parts[0])
    return reduce(parts, polynomial, reduction)


def reduce(parts: Sequence[Entries], polynomial: Polynomial, reduction: Reduction) -> Tensor:
    r"""Compute :math:`\sum_i w_i V(\log p_i)`, reduced, of entries in one or several groups of the same shape.

    ``"none"`` gives one loss per sample, ``"sum"`` their sum, ``"mean"`` the sum divided by the denominator of the
    entries: the total weight of the targets that count for class indices, the number of samples for probabilities. If
    no target counts, ``mean`` is NaN and ``sum`` is 0, as in torch.
    """
    losses = [value(part.log_p, *polynomial, part.focal_base, part.one_minus_p) * part.weight for part in parts]
    loss = losses[0] if len(losses) == 1 else losses[0] + losses[1]
    entries = parts[0]
    if reduction == "none":
        loss = loss if entries.class_dim is None else loss.sum(entries.class_dim)
    else:
        loss = loss.sum()
        if reduction == "mean":
            loss = loss / entries.denominator.masked_fill(entries.denominator == 0, torch.nan)
    return loss if loss.dtype == entries.dtype else loss.to(entries.dtype)


def has_closed_form(link: Link, input: Tensor, target: Tensor) -> bool:
    """Return True if only eager reverse-mode autograd differentiates, and by nothing but the logits.

    Everything else needs the formula: links of other types (subclasses may have entries of their own), tracers
    (``torch.compile``, ``torch.export``, ``torch.jit``), the transforms of ``torch.func``, forward mode, subclasses of
    tensors, targets, weights or alphas that need a gradient, and empty tensors, of which no maximum exists.
    """
    if type(link) not in (Softmax, Sigmoid) or torch.compiler.is_compiling() or _tracing_state() is not None:
        return False
    if in_functorch() or getattr(forward_ad, "_current_level", 0) >= 0:
        return False
    if type(input) not in (Tensor, torch.nn.Parameter) or type(target) is not Tensor:
        return False
    for other in (target, *cast(tuple[Any, ...], link)):
        if isinstance(other, Tensor) and (other.requires_grad or type(other) is not Tensor):
            return False
    return input.numel() > 0 and not target.is_inference()  # autograd cannot save inference tensors


class _ClosedForm(torch.autograd.Function):
    """The loss, with the gradient of the sum or mean of all losses computed in forward."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, target: Tensor, link: Any, plan: Plan, reduction: Reduction, observed: Entries | None
    ) -> Tensor:
        dtype, dim, limit = plan.dtype, min(1, input.dim() - 1), None
        differentiable: bool = ctx.needs_input_grad[0]
        # In float16, small gradients would underflow before the factor of a GradScaler reaches them.
        gradient_dtype = dtype if input.dtype is torch.float16 else input.dtype
        if input.numel() >= 8 * blocks.SMALLEST:
            temporaries = link.temporaries(input, target, plan) + (not differentiable)
            limit = blocks.limit(input, temporaries * dtype.itemsize)
        if limit is None:
            value, gradient, denominator = link.value_and_gradient(input, target, plan, None, observed)
            gradient = gradient if gradient.dtype is gradient_dtype else gradient.to(gradient_dtype)
        else:
            gradient = torch.empty_like(input, dtype=gradient_dtype) if differentiable else None
            values = None
            if reduction == "none":  # of size 1 along the classes if they share one loss
                like = input.narrow(dim, 0, 1) if type(link) is Softmax else input
                values = torch.empty(like.shape, dtype=dtype, device=input.device)
            joint_dim = dim if type(link) is Softmax or target.dim() < input.dim() else None
            cuts = blocks.cut(input.shape, joint_dim, limit)
            value, denominator = blocks.value_and_gradient(link, input, target, plan, gradient, observed, cuts, values)
        if observed is not None:
            observed.denominator.fill_(denominator)
        factor = None  # of the gradient
        if reduction == "none":
            loss: Tensor = value.squeeze_(dim) if type(link) is Softmax else value
        elif reduction == "sum":
            loss = value.sum()
        elif isinstance(denominator, Tensor):
            loss, factor = mean(value.sum(), denominator)
            factor.mul_(1 / plan.scale)
        else:
            loss = value.mean() if value.dim() > 0 else value / denominator
        if differentiable:
            ctx.link, ctx.polynomial, ctx.reduction = link, plan.polynomial, reduction
            ctx.save_for_backward(input, target, gradient, factor)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, target, gradient, factor = ctx.saved_tensors
        if torch.is_grad_enabled():  # this backward is to be differentiated itself
            alias = input.view_as(input)  # the hooks of the input itself come after this
            loss = _formula(ctx.link, alias, target, ctx.polynomial, ctx.reduction, None).to(grad.dtype)
            return *torch.autograd.grad(loss, alias, grad, create_graph=True), *[None] * 5
        if factor is not None:
            grad = grad * factor
        elif ctx.reduction == "none" and type(ctx.link) is Softmax:
            grad = grad.unsqueeze(min(1, grad.dim()))
        if keeps_graph() or in_functorch() or is_batched(grad):  # for another backward pass, or several at once
            gradient = gradient * grad
        elif grad.dim() > 0 or not grad.is_cpu or is_in_torch_dispatch_mode() or grad.item() != 1:
            gradient.mul_(grad)
        return gradient if gradient.dtype is input.dtype else gradient.to(input.dtype), *[None] * 5


def mean(total: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and its derivative by ``total``."""
    nothing = denominator == 0
    # The mean of nothing is NaN and its gradient infinite, but none of that reaches the logits.
    counted = denominator.masked_fill(nothing & (total == 0), torch.inf)
    return total / denominator.masked_fill(nothing, torch.nan), counted.reciprocal_()
