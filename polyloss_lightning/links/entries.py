"""What a link hands to the polynomial."""

from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor


class Entries(NamedTuple):
    """What enters the polynomial: one log-probability an entry, and how much it counts.

    Attributes:
        log_p: log-probability of each entry, float32 or float64; 0 where the target is ignored.
        weight: factor of each entry in the loss (class weight, soft target, smoothing); 0 where ignored.
        target: class index of each entry.
        denominator: scalar by which ``mean`` divides.
        class_dim: the axis over which entries are summed into one loss a sample; None if there is none.
        dtype: dtype of the loss, as torch's own loss has it.
        miss: the ``1 - Pt`` that gamma acts on, where it is not that of ``log_p``: a soft target of the sigmoid focal
            loss has one for both of its entries. None: that of ``log_p``.
        u: ``1 - Pt`` of each entry, where the link has it at hand. None: ``1 - exp(log_p)``.
    """

    log_p: Tensor
    weight: Tensor
    target: Tensor
    denominator: Tensor
    class_dim: int | None
    dtype: torch.dtype
    miss: Tensor | None = None
    u: Tensor | None = None


def check_ignore_index(ignore_index: int) -> None:
    """Raise ``TypeError`` unless ``ignore_index`` is an integer, as torch does."""
    given: object = ignore_index
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"`ignore_index` must be an integer, got {given!r} ({type(given).__name__})")


def check_logits(input: Tensor) -> None:
    """Raise ``TypeError`` unless ``input`` has a floating-point dtype."""
    if not input.is_floating_point():
        raise TypeError(f"`input` must hold floating-point logits, got {input.dtype}")


def check_class_indices(input: Tensor, target: Tensor, otherwise: str = "") -> None:
    """Raise unless ``target`` can hold one class index for each sample of ``input``.

    Args:
        input: the logits.
        target: the class indices.
        otherwise: what else ``target`` might have been, for the message.

    Raises:
        TypeError: if the dtype of ``target`` is not one that torch takes for class indices.
        ValueError: if its shape is not that of ``input`` without the class axis.
    """
    class_dim = min(1, input.dim() - 1)
    expected = input.shape[:class_dim] + input.shape[class_dim + 1 :]
    if input.dim() == 0 or target.shape != expected:
        raise ValueError(
            f"`target` must hold class indices of shape {tuple(expected)}{otherwise} for `input` of shape "
            f"{tuple(input.shape)}, got shape {tuple(target.shape)}"
        )
    if target.dtype not in (torch.int64, torch.uint8):
        raise TypeError(f"`target` must hold class indices as torch.int64 or torch.uint8, got {target.dtype}")


def output_dtype(input: Tensor, dtype: torch.dtype | None = None) -> torch.dtype:
    """The dtype in which torch's own loss comes back: float32 at least under autocast, else ``dtype``.

    Args:
        input: the logits.
        dtype: dtype of the loss without autocast; None for that of ``input``.
    """
    dtype = input.dtype if dtype is None else dtype
    if dtype in (torch.float32, torch.float64):
        return dtype
    device_type = input.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.promote_types(dtype, torch.float32)
    return dtype


def drop_impossible(log_p: Tensor, weight: Tensor) -> Tensor:
    """``log_p`` with 0 where it is ``-inf`` and does not count: masked classes must not make the loss 0 * inf."""
    return log_p.masked_fill((log_p == -torch.inf) & (weight == 0), 0)
