"""The side channel: what a loss saw in one call, detached, for metrics and figures."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from polyloss_lightning.links import Entries
from polyloss_lightning.reduction import Reduction


class Observation(NamedTuple):
    r"""The entries of one loss call, flattened and without a graph.

    For reduction ``mean`` and ``sum`` the loss is :math:`\sum_i w_i\,\ell(\log p_i) / d` exactly, with
    :math:`\ell` as in :func:`polyloss_lightning.polynomial.value`, ``miss`` given. For ``none`` the denominator is
    that of ``mean``.

    Attributes:
        log_p: ``[n]`` log-probability of each entry, float32 (float64 for float64 logits); 0 where ignored.
        weight: ``[n]`` factor with which the entry enters the loss; 0 where the target is ignored.
        target: ``[n]`` class index of the entry.
        denominator: scalar tensor by which the weighted sum is divided.
        epsilon: the perturbations in force, one a coefficient.
        gamma: focusing exponent.
        num_terms: number of terms kept, or None for the whole series.
        miss: ``[n]`` the ``1 - Pt`` that gamma acts on, for the sigmoid focal loss, where soft targets have one that is
            not ``1 - exp(log_p)``; None for all other losses.
    """

    log_p: Tensor
    weight: Tensor
    target: Tensor
    denominator: Tensor
    epsilon: tuple[float, ...]
    gamma: float
    num_terms: int | None
    miss: Tensor | None = None


Observer: TypeAlias = Callable[[Observation], None]


class Observable(Protocol):
    """Whatever can be observed: the loss modules, and whatever stands in for torch's own losses."""

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """The perturbation in force."""

    def register_observer(self, observer: Observer) -> RemovableHandle:
        """Call ``observer`` after every later evaluation; the handle ends it."""


def observe(
    entries: Entries, epsilon: tuple[float, ...], gamma: float, num_terms: int | None, reduction: Reduction
) -> Observation:
    """Detach and flatten ``entries`` into an :class:`Observation` of a loss reduced by ``reduction``."""
    denominator = entries.denominator.new_ones(()) if reduction == "sum" else entries.denominator
    return Observation(
        entries.log_p.detach().flatten(),
        entries.weight.detach().flatten(),
        entries.target.flatten(),
        denominator.detach(),
        epsilon,
        gamma,
        num_terms,
        None if entries.miss is None else entries.miss.detach().flatten(),
    )
