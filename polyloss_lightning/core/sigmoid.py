"""The sigmoid link: every element of the input is a two-class problem of its own."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from polyloss_lightning._checks import check_choice, check_integer
from polyloss_lightning.core.entries import Entries, Plan, autocast_dtype, drop_impossible, refuse_target, view_along
from polyloss_lightning.core.sigmoid_gradient import one_entry, two_entries

TargetFormat: TypeAlias = Literal["multi_hot", "class_index"]
_CHUNK = 1 << 18  # elements of the target, few enough for the cache
_TARGET_FORMATS = get_args(TargetFormat)  # outside of the functions, because torch.compile of torch 2.6 cannot trace it


class Sigmoid(NamedTuple):
    """Elements as in :func:`torch.nn.functional.binary_cross_entropy_with_logits`.

    Each element gives two entries, stacked along a new first dimension: the positive with probability ``sigmoid(x)``
    and weight ``q``, the negative with probability ``sigmoid(-x)`` and weight ``1 - q``. The class index of both is
    their index along dimension 1; if there is only one logit per sample, it is 1 for the positive and 0 for the
    negative.

    With ``alpha``, elements are those of :func:`torchvision.ops.sigmoid_focal_loss`, also for soft targets: both
    entries are weighted by ``alpha q + (1 - alpha)(1 - q)``, and gamma acts on one ``1 - Pt`` per element, with
    ``Pt = p q + (1 - p)(1 - q)``.

    Args:
        weight: factor of each element, broadcast to the logits.
        pos_weight: factor of the positive entries, broadcast to the logits.
        ignore_index: elements with this target do not count; for class indices, all elements of the sample.
        alpha: weight of the positives, the negatives have ``1 - alpha``; -1 weights neither. A tensor of shape ``(C)``
            holds one number per class.
        target_format: whether there is one target per element or one class index per sample.
    """

    weight: Tensor | None = None
    pos_weight: Tensor | None = None
    ignore_index: int = -100
    alpha: float | Tensor | None = None
    target_format: TargetFormat = "multi_hot"

    def check_options(self) -> None:
        """Raise ``TypeError`` or ``ValueError`` if an option is out of its range."""
        check_integer("ignore_index", self.ignore_index)
        check_choice("target_format", self.target_format, _TARGET_FORMATS)

    def check(self, input: Tensor, target: Tensor) -> tuple[torch.dtype, torch.dtype]:
        """Return the dtypes of the computation and of the loss; raise if ``input`` and ``target`` do not fit."""
        dim = min(1, input.dim() - 1)
        if not input.is_floating_point():
            raise TypeError(f"`input` must hold floating-point logits, got {input.dtype}")
        if self.target_format == "class_index":
            indices = target.dtype in (torch.int64, torch.uint8)
            if input.dim() == 0 or not indices or target.shape != input.shape[:dim] + input.shape[dim + 1 :]:
                refuse_target(input, target)
        elif target.is_complex():
            raise TypeError(f"`target` must be real, got {target.dtype}")
        elif target.shape != input.shape:
            raise ValueError(
                f"`target` must have the shape of `input`, {tuple(input.shape)}, one probability per element, got "
                f"shape {tuple(target.shape)}"
            )
        # Not a comparison of shapes: torch.compile of torch 2.6 cannot trace it if a size is dynamic.
        alpha, scalar = self.alpha, input.dim() == 0
        if isinstance(alpha, Tensor) and (alpha.dim() != 1 or scalar or len(alpha) != input.shape[dim]):
            raise ValueError(
                f"`alpha` must be a number or hold one number per class along axis {max(dim, 0)} of `input`, of "
                f"shape {tuple(input.shape)}, got shape {tuple(alpha.shape)}"
            )
        _check_broadcast("pos_weight", self.pos_weight, input)
        _check_broadcast("weight", self.weight, input)
        dtype, compute_dtype = input.dtype, torch.promote_types(input.dtype, torch.float32)
        if target.is_floating_point():  # torch's loss has the dtype of the target, torchvision's the larger of both
            dtype = target.dtype if alpha is None else torch.promote_types(dtype, target.dtype)
            compute_dtype = torch.promote_types(compute_dtype, target.dtype)
        return compute_dtype, autocast_dtype(input, dtype)

    def temporaries(self, input: Tensor, target: Tensor, plan: Plan) -> int:
        """Return how many tensors of the size of the logits the closed form holds at a time, beside the gradient."""
        held = 4 if plan.hard else 10 + int(target.dtype is not plan.dtype)
        held += 4 * int(not plan.polynomial.is_poly1())
        return held + int(self.weight is not None or self.pos_weight is not None)

    def slice(self, input: Tensor, block: tuple[slice, ...]) -> "Sigmoid":
        """Return the link of one block of ``input``."""
        options = self._replace(alpha=self._alpha(input))._asdict().items()
        tensors = [(name, each) for name, each in options if isinstance(each, Tensor) and each.dim() > 0]
        sliced: Any = {name: each.expand(input.shape)[block] for name, each in tensors}
        return self._replace(**sliced)

    def _alpha(self, input: Tensor, dtype: torch.dtype | None = None) -> Tensor | float | None:
        """Return alpha so that it broadcasts to ``input``; None if it weighs nothing."""
        alpha = self.alpha
        if not isinstance(alpha, Tensor):
            return alpha if alpha is not None and alpha >= 0 else None
        alpha = alpha if alpha.dim() in (0, input.dim()) else view_along(alpha, input, min(1, input.dim() - 1))
        return alpha if dtype is None else alpha.to(dtype)

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """Return the log-probability and the weight of each entry, for one target per element or class indices."""
        positive, negative = (part._asdict() for part in self.parts(input, target))
        names = [name for name, value in positive.items() if isinstance(value, Tensor) and name != "denominator"]
        stacked: dict[str, Any] = {name: torch.stack([positive[name], negative[name]]) for name in names}
        return Entries(**{**positive, **stacked, "class_dim": 0})

    def parts(self, input: Tensor, target: Tensor) -> tuple[Entries, Entries]:
        """Return the positive and the negative entries one by one: compilers cannot fuse them once they are stacked."""
        compute_dtype, dtype = self.check(input, target)
        q, ignored = self._targets(input, target, compute_dtype, True)
        # What is ignored is masked first: after the logarithm, its zero gradient would meet the slope at a NaN logit.
        x, rest = input.to(compute_dtype).masked_fill(ignored, 0), (1 - q).masked_fill(ignored, 0)
        # log sigmoid(x) = min(x, 0) - log(1 + exp(-|x|)) keeps all digits. With `where` instead of min and abs, the
        # derivatives of every order are right at x = 0 too.
        below = x <= 0
        e = torch.where(below, x, -x).exp()
        larger, log_larger = 1 / (1 + e), -torch.log1p(e)
        p, n = torch.where(below, e * larger, larger), torch.where(below, larger, e * larger)
        shares = [q if self.pos_weight is None else q * self.pos_weight.to(compute_dtype), rest]
        # 1 - Pt = q (1 - p) + (1 - q) p, a sum of positive parts: nothing cancels as Pt nears 1.
        base, alpha = None if self.alpha is None else q * n + rest * p, self._alpha(input, compute_dtype)
        if alpha is not None:
            balance = q * alpha + rest * (1 - alpha)
            shares = [share * balance for share in shares]
        if self.weight is not None:
            shares = [share * self.weight.to(compute_dtype) for share in shares]
        # Only min(x, 0) can be infinite. Of the logarithm itself, compilers would compute the mask again in backward.
        smaller = [torch.where(below, x, 0), torch.where(below, 0, -x)]
        logs = [drop_impossible(log, share) + log_larger for log, share in zip(smaller, shares, strict=True)]
        classes, denominator = _classes(input), (~ignored).sum().to(compute_dtype)
        positive = Entries(logs[0], shares[0], classes[0], denominator, None, dtype, base, n)
        return positive, Entries(logs[1], shares[1], classes[1], denominator, None, dtype, base, p)

    def _targets(self, input: Tensor, target: Tensor, dtype: torch.dtype, may_ignore: bool) -> tuple[Tensor, Any]:
        """Return the target of each element, 0 if it is ignored; and the ignored ones, None unless ``may_ignore``."""
        if not may_ignore and self.target_format == "multi_hot":
            return target.to(dtype), None
        # A scalar of -100 would wrap around to 156 in uint8.
        q = target if target.is_floating_point() else target.long()
        ignored = q == self.ignore_index
        if self.target_format == "class_index":
            dim = min(1, input.dim() - 1)
            index, ignored = q.masked_fill(ignored, 0).unsqueeze(dim), ignored.unsqueeze(dim).expand_as(input)
            q = torch.zeros_like(input, requires_grad=False).scatter(dim, index, 1)
        return (q.to(dtype).masked_fill(ignored, 0), ignored) if may_ignore else (q.to(dtype), None)

    def survey(self, target: Tensor, read: bool) -> tuple[bool, bool]:
        """Return ``hard`` and ``ignored`` of a ``Plan``, given its ``read``."""
        one_hot, ignore = self.target_format == "class_index", self.ignore_index
        if not read:
            return one_hot, True
        if not one_hot and _is_hard(target):
            return True, ignore in (0, 1)
        ignored = not (ignore < target.min().item() or target.max().item() < ignore)  # also if one is NaN
        return one_hot or (ignored and _is_hard(target, ignore)), ignored

    def empty_entries(self, input: Tensor, target: Tensor, plan: Plan) -> Entries:
        """Return the entries to be filled in by :meth:`value_and_gradient`: one per element if targets are hard."""
        classes = _classes(input)
        if plan.hard:  # without classes, the target is the class
            classes = classes[0] if _has_classes(input) else self._targets(input, target, plan.dtype, True)[0].long()
        log_p, weight, base = (input.new_empty(classes.shape, dtype=plan.dtype) for _ in range(3))
        focal = self.alpha is not None and plan.polynomial.gamma != 0 and not plan.hard
        return Entries(log_p, weight, classes, log_p.new_empty(()), None, plan.dtype, base if focal else None)

    def value_and_gradient(
        self, input: Tensor, target: Tensor, plan: Plan, out: Tensor | None = None, observed: Entries | None = None
    ) -> tuple[Tensor, Tensor, Tensor | int]:
        """Compute the loss of each element and its gradient in closed form; see ``Softmax.value_and_gradient``."""
        dtype = plan.dtype
        q, ignored = self._targets(input, target, dtype, plan.ignored)
        positive, alpha = None if self.pos_weight is None else self.pos_weight.to(dtype), self._alpha(input, dtype)
        factors = [] if self.weight is None else [self.weight.to(dtype)]
        if isinstance(alpha, Tensor):
            factors.append((q * (2 * alpha - 1)).add_(1 - alpha))
        elif alpha is not None:
            factors.append(torch.rsub(q, 1 - alpha, alpha=1 - 2 * alpha))  # alpha q + (1 - alpha)(1 - q)
        if ignored is not None:
            input = input.masked_fill(ignored, 0)
            factors.append((~ignored).to(dtype))
        out = out if out is not None and out.dtype is dtype else None
        if plan.hard:
            if positive is not None:
                factors.append((q * (positive - 1)).add_(1))
            q = torch.rsub(q, 1, alpha=2)
            value, slope = one_entry(input, q, plan, out, observed)
        else:
            a, b = q if positive is None else q * positive, torch.rsub(q, 1)
            value, slope = two_entries(input, q, a, b, plan, out, observed, self.alpha is not None)
        if observed is not None:
            shares = [q.new_ones(())] if plan.hard else [a, b]
            for weight, share in zip(observed.weight.view(-1, *q.shape), shares, strict=True):
                weight.copy_(math.prod(factors, start=share))
        for factor in factors:
            value, slope = value.mul_(factor), slope.mul_(factor)
        return value, slope, value.numel() if ignored is None else (~ignored).sum().to(dtype)


def _is_hard(target: Tensor, ignore_index: int | None = None) -> bool:
    """Return True if each target is 0, 1 or ``ignore_index``."""
    for part in torch.split(target.flatten(), _CHUNK):
        q = part if part.is_floating_point() else part.long()
        rest = torch.addcmul(q, q, q, value=-1).abs_()  # q - q^2 is rounded to 0 for 0 and 1 only
        if ignore_index is not None:
            rest = rest.masked_fill_(q == ignore_index, 0)
        if rest.sum().item() != 0:
            return False
    return True


def _has_classes(input: Tensor) -> bool:
    return input.dim() > 1 and input.shape[1] > 1


def _classes(input: Tensor) -> Tensor:
    """Return the class index of the two entries of each element."""
    if _has_classes(input):
        return view_along(torch.arange(input.shape[1], device=input.device), input, 1).expand(2, *input.shape)
    # not torch.tensor([1, 0]), whose copy from the host waits for the device
    return torch.arange(1, -1, -1, device=input.device).view(2, *[1] * input.dim()).expand(2, *input.shape)


def _check_broadcast(name: str, weight: Tensor | None, input: Tensor) -> None:
    if weight is None:
        return
    # Indices and ==: torch.compile of torch 2.6 refuses a zip of unequal lengths and finds no dynamic size in a tuple.
    fits = (weight.shape[-d] == 1 or weight.shape[-d] == input.shape[-d] for d in range(1, weight.dim() + 1))
    if weight.dim() > input.dim() or not all(fits):
        raise ValueError(
            f"`{name}` must be broadcastable to `input` of shape {tuple(input.shape)}, got shape {tuple(weight.shape)}"
        )
