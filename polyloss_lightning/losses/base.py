"""What every loss module here shares: epsilon, observers, and the way from entries to the loss."""

import inspect
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polyloss_lightning import polynomial
from polyloss_lightning.evaluation import evaluate
from polyloss_lightning.links import Entries
from polyloss_lightning.observation import Observer, observe
from polyloss_lightning.reduction import Reduction, check_reduction


class PolyLoss(nn.Module, ABC):
    r"""Base of the loss modules: :math:`(1-P_t)^\gamma (-\log P_t + \sum_j \epsilon_j (1-P_t)^j)` over entries.

    A subclass says what its entries are (:meth:`entries`) and, where it has one, its ``gamma``. No loss adds a key
    to a ``state_dict``: epsilon is a plain number, class weights are non-persistent buffers.

    Args:
        epsilon: a finite number (Poly-1) or a sequence, one number for each of the first coefficients (Poly-N).
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        num_terms: keep only the first terms of the series; None keeps all.

    Raises:
        TypeError: if ``epsilon`` is not numeric.
        ValueError: if an option is out of its range.
    """

    gamma: float = 0.0

    def __init__(
        self,
        epsilon: float | Sequence[float] = 1.0,
        *,
        reduction: Reduction = "mean",
        num_terms: int | None = None,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction
        self.num_terms = num_terms
        self.epsilon = epsilon
        polynomial.check_num_terms(num_terms, self._epsilon)
        self._initial_epsilon = tuple(self._epsilon)
        self._observers: OrderedDict[int, Observer] = OrderedDict()

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """The perturbation in force: a number, or a tuple for Poly-N. Assigning validates; nothing is recompiled."""
        return self._epsilon[0] if len(self._epsilon) == 1 else tuple(self._epsilon)

    @epsilon.setter
    def epsilon(self, epsilon: float | Sequence[float]) -> None:
        old = getattr(self, "_epsilon", ())
        new = polynomial.as_epsilon(epsilon)
        _warn_of_sign_flip(old, new)
        # A list: torch.compile takes the floats in it as inputs, and those in a tuple as constants (a graph each).
        self._epsilon = list(new)

    @abstractmethod
    def entries(self, input: Tensor, target: Tensor) -> Entries:
        """What enters the polynomial: the log-probability and the weight of each entry."""

    def axes(self, input: Tensor, target: Tensor) -> Sequence[int]:
        """Axes of ``input`` along which :meth:`entries` of a part are the part of its entries; none if in doubt.

        A subclass that has :meth:`entries` of its own is asked for axes of its own too.
        """
        return ()

    def _free_axes(self, input: Tensor, target: Tensor) -> Sequence[int]:
        owner = next(base for base in type(self).__mro__ if "entries" in vars(base))
        of_the_class = "axes" in vars(owner) and "entries" not in vars(self)
        return self.axes(input, target) if of_the_class else ()

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of ``input`` and ``target``; shapes as in the class docstring."""
        return evaluate(
            self.entries,
            input,
            target,
            self._epsilon,
            self.reduction,
            gamma=self.gamma,
            num_terms=self.num_terms,
            axes=self._free_axes,
            observe=self._notify if self._observers else None,
        )

    def base_loss(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss without epsilon and with every term: what torch computes. It stands still while epsilon moves."""
        return evaluate(self.entries, input, target, (0.0,), self.reduction, gamma=self.gamma, axes=self._free_axes)

    def register_observer(self, observer: Observer) -> RemovableHandle:
        """Call ``observer`` with the :class:`~polyloss_lightning.observation.Observation` of every later call.

        Observers receive detached tensors, are neither copied nor pickled with the loss, and cost nothing where
        there are none. Under ``torch.compile`` the graph breaks at an observed loss, so ``fullgraph=True`` does not go
        with one; and the tensors that it sees under ``torch.func`` do not outlive the transform.

        Returns:
            A handle; ``handle.remove()`` ends the observation, and it works as a context manager.

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

    # An observer is arbitrary Python: a compiled caller steps out for it, and only while somebody observes.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _notify(self, entries: Entries) -> None:
        observation = observe(entries, tuple(self._epsilon), self.gamma, self.num_terms, self.reduction)
        for observer in list(self._observers.values()):
            observer(observation)

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, with the epsilon that the loss was built with.

        They are read off attributes of the same names; a subclass that takes others and does not keep them is told
        here without them.
        """
        names = inspect.signature(type(self)).parameters
        arguments = {name: getattr(self, name) for name in names if hasattr(self, name)}
        epsilon = self._initial_epsilon
        arguments["epsilon"] = epsilon[0] if len(epsilon) == 1 else list(epsilon)
        return arguments

    def extra_repr(self) -> str:
        """``epsilon`` as it is now, and the other options."""
        options = {**self.arguments(), "epsilon": self.epsilon}
        return ", ".join(f"{name}={_shown(value)}" for name, value in options.items())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_observers": OrderedDict()}


def _shown(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    return f"<meta, {tuple(value.shape)}>" if value.is_meta else str(value.tolist())


def class_weight(weight: Tensor | Sequence[float] | None, name: str = "weight") -> Tensor | None:
    """``weight`` as a one-dimensional float tensor, or None.

    Raises:
        TypeError: if it is neither a tensor nor a sequence of numbers.
        ValueError: if it is not one-dimensional, or has an entry that is negative or not finite.
    """
    tensor = weight_tensor(weight, name)
    if tensor is not None and tensor.dim() != 1:
        raise ValueError(f"`{name}` must have shape (C), one entry a class, got shape {tuple(tensor.shape)}")
    return tensor


def weight_tensor(weight: Tensor | Sequence[float] | None, name: str) -> Tensor | None:
    """``weight`` as a float tensor of any shape, or None.

    Raises:
        TypeError: if it is neither a tensor nor a sequence of numbers.
        ValueError: if it has an entry that is negative or not finite.
    """
    if weight is None:
        return None
    try:
        # On the CPU also where modules are built on the meta device, whose buffers no checkpoint would fill.
        given = weight if isinstance(weight, Tensor) else torch.tensor(weight, dtype=torch.float32, device="cpu")
        tensor = given.detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`{name}` must be None, a tensor or a sequence of numbers, got {weight!r}") from error
    if not tensor.is_floating_point():
        tensor = tensor.float()
    if not tensor.is_meta and not bool((tensor.isfinite() & (tensor >= 0)).all()):
        raise ValueError(f"`{name}` must hold finite numbers of at least 0, got {tensor.tolist()}")
    return tensor


def _warn_of_sign_flip(old: Sequence[float], new: Sequence[float]) -> None:
    """Warn once when a coefficient turns negative, not again on every step of a schedule that is below already."""
    for j, epsilon in enumerate(new, start=1):
        already = len(old) >= j and old[j - 1] < -1 / j
        if epsilon < -1 / j and not already:
            effect = (
                f"the gradient changes its sign for Pt > {-1 / epsilon:.3g}, and pushes confident right answers away"
                if len(new) == 1
                else f"term {j} rewards a lower Pt"
            )
            warnings.warn(
                f"epsilon {epsilon:g} is below {-1 / j:g}, so coefficient {j} of the polynomial is negative: {effect}",
                stacklevel=4,
            )
