"""The sigmoid links: every element of the input is a two-class problem of its own."""

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from polyloss_lightning.checks import as_number, check_choice, check_integer
from polyloss_lightning.core.entries import (
    Entries,
    autocast_dtype,
    drop_impossible,
    refuse_class_indices,
    view_along,
)
from polyloss_lightning.core.polynomial import Polynomial
from polyloss_lightning.core.sigmoid_gradient import value_and_gradient

TargetFormat: TypeAlias = Literal["multi_hot", "class_index"]
_TARGET_FORMATS = get_args(TargetFormat)  # outside of the functions, because torch.compile of torch 2.6 cannot trace it


class Sigmoid(NamedTuple):
    """Elements as in :func:`torch.nn.functional.binary_cross_entropy_with_logits`.

    Each element gives two entries, stacked along a new first dimension: the positive with probability ``sigmoid(x)``
    and weight ``q``, the negative with probability ``sigmoid(-x)`` and weight ``1 - q``. The class index of both is
    their index along dimension 1; if there is only one logit per sample, it is 1 for the positive and 0 for the
    negative.

    Args:
        weight: factor of each element, broadcast to the logits.
        pos_weight: factor of the positive entries, broadcast to the logits.
        ignore_index: elements with this target do not count.
    """

    weight: Tensor | None = None
    pos_weight: Tensor | None = None
    ignore_index: int = -100

    def check_options(self) -> None:
        """Raise ``TypeError`` unless ``ignore_index`` is an integer."""
        check_integer("ignore_index", self.ignore_index)

    def check(self, input: Tensor, target: Tensor) -> tuple[torch.dtype, torch.dtype]:
        """Return the dtypes of the computation and of the loss; raise if ``input`` and ``target`` do not fit."""
        _check_elements(input, target)
        _check_broadcast("pos_weight", self.pos_weight, input)
        _check_broadcast("weight", self.weight, input)
        dtype = target.dtype if target.is_floating_point() else input.dtype  # as torch's loss
        return _compute_dtype(input, target), autocast_dtype(input, dtype)

    def joint_dim(self, input: Tensor) -> int | None:
        """Return None: the input can be split along every dimension."""
        return None

    def temporaries(self, input: Tensor, _: Tensor, polynomial: Polynomial, dtype: torch.dtype) -> int:
        """Return how many tensors of the size of the logits the closed form holds at a time, beside the gradient."""
        return (7 if polynomial.is_poly1() else 12) + 3 * int(input.dtype is not dtype)

    def slice(self, input: Tensor, block: tuple[slice, ...]) -> "Sigmoid":
        """Return the link of one block of ``input``."""
        return self._replace(weight=_slice(self.weight, input, block), pos_weight=_slice(self.pos_weight, input, block))

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """Return the log-probability and the weight of each entry, for one target in [0, 1] per element."""
        return _stack(*self.parts(input, target))

    def parts(self, input: Tensor, target: Tensor) -> tuple[Entries, Entries]:
        """Return the positive and the negative entries one by one: compilers cannot fuse them once they are stacked."""
        dtypes, elements = self.check(input, target), _elements(input, target, self.ignore_index)
        return _pair(input, *elements, *dtypes, self.weight, self.pos_weight)

    def empty_entries(self, input: Tensor, target: Tensor, dtype: torch.dtype) -> Entries:
        """Return entries with the shapes of :meth:`entries`, to be filled in by :meth:`value_and_gradient`."""
        return _empty_entries(input, dtype, focal=False)

    def value_and_gradient(self, input: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Compute the loss of each element and its gradient in closed form; see ``Softmax.value_and_gradient``."""
        return value_and_gradient(
            input,
            *arguments,
            weight=self.weight,
            pos_weight=self.pos_weight,
            ignore_index=self.ignore_index,
        )


class SigmoidFocal(NamedTuple):
    """Elements as in :func:`torchvision.ops.sigmoid_focal_loss`, also for soft targets.

    The entries are those of :class:`Sigmoid`, weighted by ``alpha q + (1 - alpha)(1 - q)``; gamma acts on one
    ``1 - Pt`` per element, with ``Pt = p q + (1 - p)(1 - q)``.

    Args:
        alpha: weight of the positives, the negatives have ``1 - alpha``; -1 weighs neither. A tensor of shape ``(C)``
            holds one number per class.
        weight: factor of each element, broadcast to the logits.
        ignore_index: elements with this target do not count; for class indices, all elements of the sample.
        target_format: whether there is one target per element or one class index per sample.
    """

    alpha: float | Tensor = 0.25
    weight: Tensor | None = None
    ignore_index: int = -100
    target_format: TargetFormat = "multi_hot"

    def check_options(self) -> None:
        """Raise ``TypeError`` or ``ValueError`` if an option is out of its range."""
        check_integer("ignore_index", self.ignore_index)
        check_choice("target_format", self.target_format, _TARGET_FORMATS)
        # The values of a tensor are not checked: that would wait for the device.
        if not isinstance(self.alpha, Tensor) and self.alpha != -1:
            kind = "a number in [0, 1], -1 to weigh nothing, or a tensor of one number per class"
            as_number("alpha", self.alpha, kind, "in [0, 1], or -1 to weigh nothing", at_least=0, at_most=1)

    def check(self, input: Tensor, target: Tensor) -> tuple[torch.dtype, torch.dtype]:
        """Return the dtypes of the computation and of the loss; raise if ``input`` and ``target`` do not fit."""
        dim, dtype = min(1, input.dim() - 1), input.dtype
        if self.target_format == "multi_hot":
            _check_elements(input, target)
        else:
            _check_logits(input)
            indices = target.dtype in (torch.int64, torch.uint8)
            if input.dim() == 0 or not indices or target.shape != input.shape[:dim] + input.shape[dim + 1 :]:
                refuse_class_indices(input, target)
        # Not a comparison of shapes: torch.compile of torch 2.6 cannot trace it if a size is dynamic.
        alpha, scalar = self.alpha, input.dim() == 0
        if isinstance(alpha, Tensor) and alpha.dim() > 0 and (scalar or len(alpha) != input.shape[dim]):
            raise ValueError(
                f"`alpha` must be a number or hold one number per class along axis {max(dim, 0)} of `input`, of "
                f"shape {tuple(input.shape)}, got shape {tuple(alpha.shape)}"
            )
        _check_broadcast("weight", self.weight, input)
        if target.is_floating_point():
            dtype = torch.promote_types(dtype, target.dtype)  # as torchvision's loss
        return _compute_dtype(input, target), autocast_dtype(input, dtype)

    def joint_dim(self, input: Tensor) -> int | None:
        """Return the dimension along which the input must stay in one piece: that of class indices."""
        return min(1, input.dim() - 1) if self.target_format == "class_index" else None

    def temporaries(self, input: Tensor, _: Tensor, polynomial: Polynomial, dtype: torch.dtype) -> int:
        """Return how many tensors of the size of the logits the closed form holds at a time, beside the gradient."""
        return (7 if polynomial.is_poly1() else 12) + 3 * int(input.dtype is not dtype)

    def slice(self, input: Tensor, block: tuple[slice, ...]) -> "SigmoidFocal":
        """Return the link of one block of ``input``."""
        alpha = self._alpha(input)
        alpha = alpha.expand(input.shape)[block] if isinstance(alpha, Tensor) else self.alpha
        return self._replace(alpha=alpha, weight=_slice(self.weight, input, block))

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """Return the log-probability and the weight of each entry, for one target per element or class indices."""
        return _stack(*self.parts(input, target))

    def parts(self, input: Tensor, target: Tensor) -> tuple[Entries, Entries]:
        """Return the positive and the negative entries one by one: compilers cannot fuse them once they are stacked."""
        dtypes = self.check(input, target)
        elements = (_one_hot if self.target_format == "class_index" else _elements)(input, target, self.ignore_index)
        return _pair(input, *elements, *dtypes, self.weight, None, self._alpha(input), focal=True)

    def _alpha(self, input: Tensor) -> Tensor | float | None:
        """Return alpha so that it broadcasts to ``input``; None if it weighs nothing."""
        alpha = self.alpha
        if isinstance(alpha, Tensor) and alpha.dim() > 0:
            return alpha if alpha.dim() == input.dim() else view_along(alpha, input, min(1, input.dim() - 1))
        return alpha if alpha >= 0 else None

    def empty_entries(self, input: Tensor, target: Tensor, dtype: torch.dtype) -> Entries:
        """Return entries with the shapes of :meth:`entries`, to be filled in by :meth:`value_and_gradient`."""
        return _empty_entries(input, dtype, focal=True)

    def value_and_gradient(self, input: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Compute the loss of each element and its gradient in closed form; see ``Softmax.value_and_gradient``."""
        return value_and_gradient(
            input,
            *arguments,
            weight=self.weight,
            alpha=self._alpha(input),
            ignore_index=self.ignore_index,
            focal=True,
        )


def _pair(
    input: Tensor,
    target: Tensor,
    counted: Tensor,
    compute_dtype: torch.dtype,
    dtype: torch.dtype,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    alpha: Tensor | float | None = None,
    focal: bool = False,
) -> tuple[Entries, Entries]:
    """Return the positive and the negative entries, weighted by q and 1 - q."""
    # What is ignored is masked first: after the logarithm, its zero gradient would meet the slope at a NaN logit.
    x, q = input.to(compute_dtype).masked_fill(~counted, 0), target.to(compute_dtype)
    q, rest = q.masked_fill(~counted, 0), (1 - q).masked_fill(~counted, 0)
    # log sigmoid(x) = min(x, 0) + log(1 - sigmoid(-|x|)) keeps all digits. With `where` instead of min and abs, the
    # derivatives of every order are right at x = 0 too.
    below = x <= 0
    s = torch.where(below, x, -x).sigmoid()
    p, n, log_larger = torch.where(below, s, 1 - s), torch.where(below, 1 - s, s), torch.log1p(-s)
    # 1 - Pt = q (1 - p) + (1 - q) p, a sum of positive parts: nothing cancels as Pt nears 1.
    focal_base = q * n + rest * p if focal else None
    shares = [q if pos_weight is None else q * pos_weight.to(compute_dtype), rest]
    if alpha is not None:
        alpha = alpha.to(compute_dtype) if isinstance(alpha, Tensor) else alpha
        balance = q * alpha + rest * (1 - alpha)
        shares = [share * balance for share in shares]
    if weight is not None:
        shares = [share * weight.to(compute_dtype) for share in shares]
    logs = [torch.where(below, x, 0) + log_larger, torch.where(below, 0, -x) + log_larger]
    classes, denominator = _classes(input), counted.sum().to(compute_dtype)
    ignored = ~counted
    logs = [drop_impossible(log.masked_fill(ignored, 0), share) for log, share in zip(logs, shares, strict=True)]
    ones_minus_p = n.masked_fill(ignored, 0), p.masked_fill(ignored, 0)
    return (
        Entries(logs[0], shares[0], classes[0], denominator, None, dtype, focal_base, ones_minus_p[0]),
        Entries(logs[1], shares[1], classes[1], denominator, None, dtype, focal_base, ones_minus_p[1]),
    )


def _stack(positive: Entries, negative: Entries) -> Entries:
    """Stack the entries along a new first dimension, which is that of the classes."""
    names = [name for name, value in positive._asdict().items() if isinstance(value, Tensor) and name != "denominator"]
    stacked: dict[str, Any] = {name: torch.stack([getattr(positive, name), getattr(negative, name)]) for name in names}
    return positive._replace(class_dim=0, **stacked)


def _classes(input: Tensor) -> Tensor:
    """Return the class index of the two entries of each element."""
    if input.dim() < 2 or input.shape[1] == 1:
        # not torch.tensor([1, 0]), whose copy from the host waits for the device
        classes = torch.arange(1, -1, -1, device=input.device).view(2, *[1] * input.dim())
    else:
        classes = view_along(torch.arange(input.shape[1], device=input.device), input, 1)
    return classes.expand(2, *input.shape)


def _empty_entries(input: Tensor, dtype: torch.dtype, focal: bool) -> Entries:
    log_p, weight = (input.new_empty((2, *input.shape), dtype=dtype) for _ in range(2))
    base = input.new_empty(input.shape, dtype=dtype).expand(2, *input.shape) if focal else None
    return Entries(log_p, weight, _classes(input), log_p.new_empty(()), 0, dtype, focal_base=base)


def _compute_dtype(input: Tensor, target: Tensor) -> torch.dtype:
    dtype = torch.promote_types(input.dtype, torch.float32)
    return torch.promote_types(dtype, target.dtype) if target.is_floating_point() else dtype


def _elements(input: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the target of each element, and whether it counts."""
    # A scalar of -100 would wrap around to 156 in uint8.
    target = target if target.is_floating_point() else target.long()
    return target, target != ignore_index


def _one_hot(input: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return class indices as one target per element, and whether it counts."""
    class_dim = min(1, input.dim() - 1)
    target = target.long().unsqueeze(class_dim)
    counted = target != ignore_index
    ones = torch.zeros_like(input, dtype=torch.int64).scatter(class_dim, target * counted, 1)
    return ones, counted.expand_as(ones)


def _slice(values: Tensor | None, input: Tensor, block: tuple[slice, ...]) -> Tensor | None:
    return None if values is None else values.expand(input.shape)[block]


def _check_logits(input: Tensor) -> None:
    if not input.is_floating_point():
        raise TypeError(f"`input` must hold floating-point logits, got {input.dtype}")


def _check_elements(input: Tensor, target: Tensor) -> None:
    _check_logits(input)
    if target.is_complex():
        raise TypeError(f"`target` must be real, got {target.dtype}")
    if target.shape != input.shape:
        raise ValueError(
            f"`target` must have the shape of `input`, {tuple(input.shape)}, one probability per element, got "
            f"shape {tuple(target.shape)}"
        )


def _check_broadcast(name: str, weight: Tensor | None, input: Tensor) -> None:
    if weight is None:
        return
    # Indices and ==: torch.compile of torch 2.6 refuses a zip of unequal lengths and finds no dynamic size in a tuple.
    fits = (weight.shape[-d] == 1 or weight.shape[-d] == input.shape[-d] for d in range(1, weight.dim() + 1))
    if weight.dim() > input.dim() or not all(fits):
        raise ValueError(
            f"`{name}` must be broadcastable to `input` of shape {tuple(input.shape)}, got shape {tuple(weight.shape)}"
        )
