"""What a link computes from logits and target, and the checks of shape and dtype that the links share."""

from typing import NamedTuple, NoReturn

import torch
from torch import Tensor


class Entries(NamedTuple):
    """What enters the polynomial: one log-probability per entry, and the weight of the entry.

    Attributes:
        log_p: log-probability of each entry, float32 or float64; 0 if the target is ignored.
        weight: factor of each entry in the loss (class weight, soft target, smoothing); 0 if ignored.
        target: class index of each entry.
        denominator: scalar by which ``mean`` divides.
        class_dim: dimension over which entries are summed into one loss per sample; None if there is none.
        dtype: dtype of the loss, which is that of torch's own loss.
        focal_base: the ``1 - Pt`` that is raised to gamma, if it differs from that of ``log_p``: both entries of a soft
            target of the sigmoid focal loss have the same one. None: that of ``log_p``.
        one_minus_p: ``1 - Pt`` of each entry, if the link computes it anyway. None: ``1 - exp(log_p)``.
    """

    log_p: Tensor
    weight: Tensor
    target: Tensor
    denominator: Tensor
    class_dim: int | None
    dtype: torch.dtype
    focal_base: Tensor | None = None
    one_minus_p: Tensor | None = None


def view_along(values: Tensor, input: Tensor, dim: int) -> Tensor:
    """View one-dimensional ``values`` so that they broadcast to ``input`` along ``dim``."""
    return values.view([-1 if d == dim else 1 for d in range(input.dim())])


def refuse_class_indices(input: Tensor, target: Tensor, otherwise: str = "") -> NoReturn:
    """Raise because ``target`` does not hold one class index for each sample of ``input``.

    Args:
        input: the logits.
        target: the class indices.
        otherwise: what else ``target`` might have been, for the message.

    Raises:
        TypeError: if the dtype of ``target`` is not one that torch takes for class indices.
        ValueError: if its shape is not that of ``input`` without the class dimension.
    """
    dim = min(1, input.dim() - 1)
    expected = input.shape[:dim] + input.shape[dim + 1 :]
    if input.dim() > 0 and target.shape == expected:
        raise TypeError(f"`target` must hold class indices as torch.int64 or torch.uint8, got {target.dtype}")
    raise ValueError(
        f"`target` must hold class indices of shape {tuple(expected)}{otherwise} for `input` of shape "
        f"{tuple(input.shape)}, got shape {tuple(target.shape)}"
    )


def autocast_dtype(input: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return ``dtype``, or at least float32 under autocast: the dtype in which torch's own loss comes back."""
    if dtype in (torch.float32, torch.float64):
        return dtype
    device_type = input.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.promote_types(dtype, torch.float32)
    return dtype


def drop_impossible(log_p: Tensor, weight: Tensor) -> Tensor:
    """Return ``log_p`` with 0 for entries of probability 0 and weight 0: masked classes must not give 0 * inf."""
    return log_p.masked_fill((log_p == -torch.inf) & (weight == 0), 0)
