"""What a loss computed in one call, detached, for metrics and figures."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from polyloss_lightning.core.entries import Entries
from polyloss_lightning.core.polynomial import Polynomial


class Observation(NamedTuple):
    r"""The entries of one loss call, flattened and without a graph.

    For reduction ``mean`` and ``sum`` the loss is :math:`\sum_i w_i\,\ell(\log p_i) / d` exactly, with
    :math:`\ell` as in :func:`polyloss_lightning.core.polynomial.value`, given ``focal_base``. For ``none`` the
    denominator is that of ``mean``.

    Attributes:
        log_p: ``[n]`` log-probability of each entry, float32 (float64 for float64 logits); 0 if ignored.
        weight: ``[n]`` factor of the entry in the loss; 0 if the target is ignored.
        target: ``[n]`` class index of the entry.
        denominator: scalar tensor by which the weighted sum is divided.
        epsilon: the perturbations in force, one per coefficient.
        gamma: focusing exponent.
        num_terms: number of terms kept, or None for the whole series.
        focal_base: ``[n]`` the ``1 - Pt`` that is raised to gamma, for the sigmoid focal loss: for soft targets it is
            not ``1 - exp(log_p)``. None for all other losses.
    """

    log_p: Tensor
    weight: Tensor
    target: Tensor
    denominator: Tensor
    epsilon: tuple[float, ...]
    gamma: float
    num_terms: int | None
    focal_base: Tensor | None = None


Observer: TypeAlias = Callable[[Observation], None]


class Observable(Protocol):
    """Anything that can be observed: the loss modules, and what replaces torch's own losses."""

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """The perturbation in force."""

    def register_observer(self, observer: Observer) -> RemovableHandle:
        """Call ``observer`` after every later evaluation, until the handle is removed."""


def observe(entries: Entries, polynomial: Polynomial, reduction: str) -> Observation:
    """Detach and flatten ``entries`` into an :class:`Observation` of a loss reduced by ``reduction``."""
    denominator = entries.denominator.new_ones(()) if reduction == "sum" else entries.denominator
    return Observation(
        entries.log_p.detach().flatten(),
        entries.weight.detach().flatten(),
        entries.target.flatten(),
        denominator.detach(),
        tuple(polynomial.epsilon),
        polynomial.gamma,
        polynomial.num_terms,
        None if entries.focal_base is None else entries.focal_base.detach().flatten(),
    )
