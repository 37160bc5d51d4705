"""What a link computes from logits and target, what observers see of it, and the checks that the links share."""

from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeAlias

import torch
from torch import Tensor

from polyloss_lightning.core.polynomial import Polynomial


class Entries(NamedTuple):
    """What enters the polynomial.

    Attributes:
        log_p: log-probability of each entry, float32 or float64.
        weight: factor of each entry in the loss (class weight, soft target, smoothing); 0 if the target is ignored.
        target: class index of each entry.
        denominator: scalar by which ``mean`` divides.
        class_dim: dimension over which entries are summed into one loss per sample; None if there is none.
        dtype: dtype of the loss, which is that of torch's own loss.
        focal_base: the ``1 - Pt`` that is raised to gamma, if it is not ``1 - exp(log_p)``: both entries of a soft
            target of the sigmoid focal loss have the same one.
        one_minus_p: ``1 - exp(log_p)``, if the link computes it anyway.
    """

    log_p: Tensor
    weight: Tensor
    target: Tensor
    denominator: Tensor
    class_dim: int | None
    dtype: torch.dtype
    focal_base: Tensor | None = None
    one_minus_p: Tensor | None = None


class Plan(NamedTuple):
    """How to compute a loss and its gradient in closed form."""

    polynomial: Polynomial
    dtype: torch.dtype  # of the computation
    scale: float  # factor of the gradient
    read: bool  # whether reading a value costs nothing, as on the CPU
    hard: bool = False  # whether all targets of a sigmoid loss are known to be 0, 1 or ignored
    ignored: bool = True  # whether any target may be ignored


class Observation(NamedTuple):
    r"""The entries of one loss call, flattened and without a graph.

    For reduction ``mean`` and ``sum`` the loss is :math:`\sum_i w_i\,\ell(\log p_i) / d` exactly, with :math:`\ell` as
    in :func:`polyloss_lightning.core.polynomial.value`. For ``none`` the denominator is that of ``mean``.

    Attributes:
        log_p: ``[n]`` log-probability of each entry, float32 (float64 for float64 logits).
        weight: ``[n]`` factor of the entry in the loss, 0 if the target is ignored. Entries of weight 0 may be left
            out: a sigmoid loss of targets that are 0 or 1 has one entry per element, otherwise two.
        classes: class index of each entry, of any shape: for many entries a view that repeats a few numbers, because
            writing one index per entry can take longer than the loss. See :attr:`target`.
        denominator: scalar tensor by which the weighted sum is divided; if it is 0, the mean is NaN.
        epsilon: the perturbations in force, one per coefficient.
        gamma: focusing exponent.
        num_terms: number of terms kept, or None for the whole series.
        focal_base: ``[n]`` the ``1 - Pt`` that is raised to gamma, as in :class:`Entries`.
    """

    log_p: Tensor
    weight: Tensor
    classes: Tensor
    denominator: Tensor
    epsilon: tuple[float, ...]
    gamma: float
    num_terms: int | None
    focal_base: Tensor | None = None

    @property
    def target(self) -> Tensor:
        """``[n]`` class index of each entry."""
        return self.classes.flatten()


Observer: TypeAlias = Callable[[Observation], None]


def observe(entries: Entries, polynomial: Polynomial, reduction: str) -> Observation:
    """Detach and flatten ``entries`` into an :class:`Observation` of a loss reduced by ``reduction``."""
    denominator = entries.denominator.new_ones(()) if reduction == "sum" else entries.denominator
    return Observation(
        entries.log_p.detach().flatten(),
        entries.weight.detach().flatten(),
        entries.target,
        denominator.detach(),
        tuple(polynomial.epsilon),
        polynomial.gamma,
        polynomial.num_terms,
        None if entries.focal_base is None else entries.focal_base.detach().flatten(),
    )


def view_along(values: Tensor, input: Tensor, dim: int) -> Tensor:
    """View one-dimensional ``values`` so that they broadcast to ``input`` along ``dim``."""
    return values.view([-1 if d == dim else 1 for d in range(input.dim())])


def refuse_target(input: Tensor, target: Tensor, otherwise: str = "") -> NoReturn:
    """Raise because ``target`` does not hold one class index per sample; ``otherwise`` names what else it may hold."""
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
