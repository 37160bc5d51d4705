"""What every loss module shares: epsilon, observers, and the way from entries to the loss."""

import inspect
import math
from collections import OrderedDict
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polyloss_lightning._checks import check_choice
from polyloss_lightning.core import Entries, Observer, Polynomial, Reduction, Sigmoid, Softmax
from polyloss_lightning.core.entries import observe
from polyloss_lightning.core.loss import REDUCTIONS, loss
from polyloss_lightning.core.polynomial import as_epsilon, check_num_terms, warn_of_sign_flip


class PolyLoss(nn.Module):
    r"""Base of the loss modules: :math:`(1-P_t)^\gamma (-\log P_t + \sum_j \epsilon_j (1-P_t)^j)`, summed over entries.

    No loss adds a key to a ``state_dict``: epsilon is a plain number, class weights are non-persistent buffers. The
    attribute ``initial_epsilon`` is the epsilon that the loss was built with.

    To write a loss of your own, override :meth:`entries`, which returns a log-probability and a weight for each entry.
    Everything else follows: Poly-N, ``num_terms``, reductions, observers, ``base_loss``, annealing, checkpoints.
    Set the attribute ``gamma`` if the loss has one. Autograd differentiates the formula of the entries.

    Args:
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        num_terms: keep only the first terms of the series; None keeps all.

    Raises:
        TypeError: if ``epsilon`` is not numeric, or the class has no entries.
        ValueError: if an option is out of its range.

    Example:
        Poly-1 cross-entropy with a temperature:

        >>> from polyloss_lightning import Poly1CrossEntropyLoss
        >>> class TemperedLoss(Poly1CrossEntropyLoss):
        ...     def __init__(self, epsilon=1.0, *, temperature=1.0, **options):
        ...         super().__init__(epsilon, **options)
        ...         self.temperature = temperature
        ...
        ...     def entries(self, input, target):
        ...         return super().entries(input / self.temperature, target)
        >>> loss = TemperedLoss(epsilon=2.0, temperature=4.0)
        >>> loss(torch.tensor([[4.0, 0.0]]), torch.tensor([0]))  # log(1 + 1/e) + 2 / (1 + e)
        tensor(0.8511)

    References:
        Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022;
        for the focal losses Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """

    __jit_unused_properties__ = ("epsilon", "reduction")
    gamma: float = 0.0
    link_type: type[Softmax] | type[Sigmoid] | None = None

    def __init__(
        self, epsilon: float | Sequence[float] = 1.0, *, reduction: Reduction = "mean", num_terms: int | None = None
    ) -> None:
        super().__init__()
        if type(self).entries is PolyLoss.entries and self.link_type is None:
            raise TypeError(f"{type(self).__name__} must override `entries`, which returns what enters the polynomial")
        self.reduction = reduction
        self.num_terms = num_terms
        self.epsilon = epsilon
        self.initial_epsilon = self.epsilon
        self._observers: OrderedDict[int, Observer] = OrderedDict()

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """The current perturbation, a number or a tuple for Poly-N. Assigning validates and does not recompile."""
        return self._epsilon[0] if len(self._epsilon) == 1 else tuple(self._epsilon)

    @epsilon.setter
    def epsilon(self, epsilon: float | Sequence[float]) -> None:
        new = as_epsilon(epsilon)
        check_num_terms(self.num_terms, new)
        warn_of_sign_flip(getattr(self, "_epsilon", ()), new)
        # A list: torch.compile treats its floats as inputs, but those in a tuple as constants, with a graph per value.
        self._epsilon = list(new)

    @property
    def reduction(self) -> Reduction:
        """``"none"``, ``"mean"`` or ``"sum"``. A new value is validated."""
        return self._reduction

    @reduction.setter
    def reduction(self, reduction: Reduction) -> None:
        check_choice("reduction", reduction, REDUCTIONS)
        self._reduction = reduction

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refuse a parameter as epsilon, which :class:`torch.nn.Module` would register without calling the setter."""
        if name == "epsilon":
            as_epsilon(cast(Any, param))
        super().register_parameter(name, param)

    def link(self) -> Any:
        """Return the link with the options of this loss as they are now; its fields have the names of the options."""
        return self.link_type(*attrgetter(*self.link_type._fields)(self)) if self.link_type else self

    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """Return what enters the polynomial: the log-probability and the weight of each entry."""
        entries: Entries = self.link().entries(input, target)
        return entries

    @torch.jit.unused  # so that a model that contains a loss can be scripted
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of ``input`` and ``target``; shapes as in the class docstring."""
        # A subclass or an instance may have entries of its own: then the loss is their formula.
        link = self.link() if type(self).entries is PolyLoss.entries and "entries" not in self.__dict__ else self
        polynomial = Polynomial(self._epsilon, self.gamma, self.num_terms)
        return loss(link, input, target, polynomial, self._reduction, self._notify if self._observers else None)

    def base_loss(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss without epsilon and with every term: torch's own. It does not move with epsilon."""
        link = self.link() if type(self).entries is PolyLoss.entries and "entries" not in self.__dict__ else self
        return loss(link, input, target, Polynomial((0.0,), self.gamma), self._reduction)

    def register_observer(self, observer: Observer) -> RemovableHandle:
        """Call ``observer`` with the :class:`~polyloss_lightning.core.Observation` of every later call.

        ``handle.remove()`` of the returned handle, which is a context manager too, ends the observation. Observers
        receive detached tensors and are neither copied nor pickled with the loss. Without observers there is no cost.
        The graph of ``torch.compile`` breaks at an observed loss, so it cannot be compiled with ``fullgraph=True``, and
        tensors observed under ``torch.func`` must not be used after the transform.

        Example:
            >>> from polyloss_lightning import Poly1CrossEntropyLoss
            >>> loss, seen = Poly1CrossEntropyLoss(), []
            >>> with loss.register_observer(seen.append):
            ...     _ = loss(torch.zeros(2, 4), torch.tensor([0, 3]))
            >>> seen[0].log_p.exp()
            tensor([0.2500, 0.2500])
        """
        handle = RemovableHandle(self._observers)
        self._observers[handle.id] = observer
        return handle

    # An observer is arbitrary Python: compiled code leaves the graph to call it, and only if there is one.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _notify(self, entries: Entries) -> None:
        observation = observe(entries, Polynomial(self._epsilon, self.gamma, self.num_terms), self._reduction)
        for observer in list(self._observers.values()):
            observer(observation)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the epsilon that the loss was built with.

        They are read from attributes of the same names; those that a subclass does not store are left out.
        """
        names = inspect.signature(type(self)).parameters
        arguments = {name: getattr(self, name) for name in names if hasattr(self, name)}
        epsilon = self.initial_epsilon
        arguments["epsilon"] = list(epsilon) if isinstance(epsilon, tuple) else epsilon
        return arguments

    def extra_repr(self) -> str:
        """Return ``epsilon`` as it is now, and the other options."""
        options = {**self.arguments(), "epsilon": self.epsilon}
        return ", ".join(f"{name}={_shown(value)}" for name, value in options.items())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_observers": OrderedDict()}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # No checkpoint has this key: EpsilonScheduler adds it to what a spawned process returns to the main process.
        epsilon = state_dict.pop(f"{prefix}_polyloss_epsilon", None)
        if epsilon is not None:
            self.epsilon = epsilon.tolist()
        super()._load_from_state_dict(state_dict, prefix, *args)


def checked_loss(
    link: Softmax | Sigmoid, input: Tensor, target: Tensor, polynomial: Polynomial, reduction: Reduction
) -> Tensor:
    """Return the loss, after checking the options that a loss module checks at construction."""
    link.check_options()
    check_choice("reduction", reduction, REDUCTIONS)
    for name in ("weight", "pos_weight"):
        if not isinstance(getattr(link, name, None), (Tensor, type(None))):
            raise TypeError(f"`{name}` must be a tensor or None, got {getattr(link, name)!r}")
    return loss(link, input, target, polynomial, reduction)


def _shown(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    short = value.numel() <= 10 and not value.is_meta
    return str(value.tolist()) if short else f"<tensor of shape {tuple(value.shape)}>"


def weight_tensor(
    weight: Tensor | Sequence[float] | None, name: str, *, per_class: bool = False, at_most: float = math.inf
) -> Tensor | None:
    """Return ``weight`` as a floating-point tensor of its own, of shape ``(C)`` if ``per_class``; None if it is None.

    Raise ``TypeError`` or ``ValueError`` unless it holds numbers in the range from 0 to ``at_most``.
    """
    if weight is None:
        return None
    try:
        # On the CPU even if modules are built on the meta device: no checkpoint contains these buffers to fill later.
        given = weight if isinstance(weight, Tensor) else torch.tensor(weight, dtype=torch.float32, device="cpu")
        tensor = given.detach().clone() if given.is_floating_point() else given.float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`{name}` must be None, a tensor or a sequence of numbers, got {weight!r}") from error
    if per_class and (tensor.dim() != 1 or len(tensor) == 0):
        raise ValueError(f"`{name}` must have shape (C), one entry per class, got shape {tuple(tensor.shape)}")
    if not tensor.is_meta and not bool((tensor.isfinite() & (tensor >= 0) & (tensor <= at_most)).all()):
        kind = "finite numbers of at least 0" if at_most == math.inf else f"numbers in [0, {at_most:g}]"
        raise ValueError(f"`{name}` must hold {kind}, got {tensor.tolist()}")
    return tensor
