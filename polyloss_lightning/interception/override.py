"""Replacing torch's loss functions while a block runs."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, TypeAlias, get_args

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from polyloss_lightning.core import Observable, Observer, polynomial
from polyloss_lightning.interception.call_sites import CallSite, table
from polyloss_lightning.interception.elementwise import ElementwiseLossMode
from polyloss_lightning.interception.functions import LossName, check_losses
from polyloss_lightning.interception.mode import Elementwise, LossMode, LossOverrideError
from polyloss_lightning.interception.scope import Scope
from polyloss_lightning.losses.base import warn_of_sign_flip

OnNothing: TypeAlias = Literal["error", "warn"]


class LossOverride:
    """See :func:`override_losses`, which builds it."""

    def __init__(
        self,
        epsilon: float | Sequence[float] = 1.0,
        *,
        losses: Sequence[LossName] | None = None,
        scope: Sequence[str] | None = None,
        module: nn.Module | None = None,
        elementwise: Elementwise = "error",
        on_nothing: OnNothing = "error",
    ) -> None:
        if elementwise not in get_args(Elementwise):
            raise ValueError(f"`elementwise` must be one of {get_args(Elementwise)}, got {elementwise!r}")
        if on_nothing not in get_args(OnNothing):
            raise ValueError(f"`on_nothing` must be one of {get_args(OnNothing)}, got {on_nothing!r}")
        self.on_nothing = on_nothing
        mode = ElementwiseLossMode if elementwise == "apply" else LossMode
        self._mode = mode(check_losses(losses), None if scope is None else Scope(scope), elementwise)
        self.epsilon = epsilon
        if module is not None:
            self.resolve_scope(module)

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """The perturbation in force: a number, or a tuple for Poly-N. Assigning validates; nothing is recompiled."""
        epsilon = self._mode.epsilon
        return epsilon[0] if len(epsilon) == 1 else epsilon

    @epsilon.setter
    def epsilon(self, epsilon: float | Sequence[float]) -> None:
        old, new = self._mode.epsilon, polynomial.as_epsilon(epsilon)
        warn_of_sign_flip(old, new)
        self._mode.epsilon = new

    def resolve_scope(self, module: nn.Module) -> None:
        """Find the modules that the scope names in ``module``.

        Raises:
            ValueError: if one of its patterns names none.
        """
        if self._mode.scope is not None:
            self._mode.scope.resolve(module)

    @property
    def call_sites(self) -> list[CallSite]:
        """The calls of losses seen so far, by place: which were replaced, and why the others were not."""
        return self._mode.call_sites()

    def table(self) -> str:
        """:attr:`call_sites` as text."""
        return table(self.call_sites)

    def observables(self) -> dict[str, Observable]:
        """What can be observed, one for each function that is replaced, by its name."""
        return {name: _ReplacedLoss(self, self._mode, name) for name in self._mode.losses}

    @property
    def observed(self) -> bool:
        """Whether somebody observes."""
        return bool(self._mode.observers)

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Replace the losses while the block runs."""
        with self._entered(replacing=True):
            yield

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Show the observers what would be replaced while the block runs, and change nothing."""
        with self._entered(replacing=False):
            yield

    @contextmanager
    def _entered(self, *, replacing: bool) -> Iterator[None]:
        before, self._mode.replacing = self._mode.replacing, replacing
        self._mode.trains = torch.is_grad_enabled()
        try:
            with self._mode:
                yield
        finally:
            self._mode.replacing = before

    def forget(self) -> None:
        """Forget the call sites seen so far."""
        self._mode.call_sites()  # takes in what compiled code left
        self._mode.sites = {}

    def check(self) -> None:
        """Raise (or warn, as ``on_nothing`` says) if no loss was replaced so far.

        Raises:
            LossOverrideError: if so.
        """
        sites = self.call_sites
        if any(site.replaced for site in sites):
            return
        message = f"No loss was replaced. Looked for: {', '.join(self._mode.losses)}"
        message += f"; within {self._mode.scope}.\n" if self._mode.scope is not None else ".\n"
        message += f"Calls seen:\n{table(sites)}" if sites else _UNSEEN
        if self.on_nothing == "error":
            raise LossOverrideError(f"{message}\non_nothing='warn' goes on all the same.")
        warnings.warn(message, stacklevel=2)

    def __enter__(self) -> "LossOverride":
        self._mode.trains = torch.is_grad_enabled()
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._mode.__exit__(kind, value, traceback)  # type: ignore[no-untyped-call]
        if kind is None:
            self.check()


class _ReplacedLoss:
    """One of the functions that an override replaces, as something to observe."""

    def __init__(self, override: LossOverride, mode: LossMode, name: str) -> None:
        self._override = override
        self._mode = mode
        self._name = name

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        return self._override.epsilon

    def register_observer(self, observer: Observer) -> RemovableHandle:
        handle = RemovableHandle(self._mode.observers)
        self._mode.observers[handle.id] = (self._name, observer)
        return handle


def override_losses(
    epsilon: float | Sequence[float] = 1.0,
    *,
    losses: Sequence[LossName] | None = None,
    scope: Sequence[str] | None = None,
    module: nn.Module | None = None,
    elementwise: Elementwise = "error",
    on_nothing: OnNothing = "error",
) -> LossOverride:
    r"""Replace torch's loss functions by Poly-1 losses while a block runs, in code that knows nothing of it.

    Every call of one of the ``losses``, in whatever module and imported under whatever name, gets
    :math:`\sum_j \epsilon_j (1-P_t)^j` added per entry, weighted and reduced as the call says. It keeps ``weight``,
    ``ignore_index``, ``label_smoothing``, ``pos_weight``, ``reduction``, soft targets and the dtype of the result. A
    loss of this package that runs in the block is left alone, and of nested blocks the innermost acts.

    The block is thread-local. Have the backward pass in it if the model recomputes activations
    (``torch.utils.checkpoint``), the forward pass is enough otherwise.

    Args:
        epsilon: a finite number (Poly-1) or a sequence (Poly-N). ``override.epsilon = 0.5`` moves it later.
        losses: the functions to replace: ``"cross_entropy"`` (with :class:`torch.nn.CrossEntropyLoss`),
            ``"binary_cross_entropy_with_logits"``, ``"sigmoid_focal_loss"`` of torchvision, ``"linear_cross_entropy"``
            and ``"nll_loss"``. None is all but the last, whose input is often no log-probability.
        scope: paths of modules in ``module``, or globs of them, inside of which losses are replaced; None is
            everywhere. In compiled code a scope breaks the graph at the loss.
        module: the model that the paths are of.
        elementwise: a loss of reduction ``"none"`` may go into a mask and a mean, or into a focal loss that takes
            ``exp(-ce)`` for Pt and would be corrupted: ``"error"``, ``"apply"`` (an error if it goes through an
            ``exp``), or ``"skip"``. (Inside torchvision's focal loss nothing is ambiguous.)
        on_nothing: what to do at the end of a block if no loss was replaced.

    Returns:
        A context manager; ``override.table()`` and ``override.call_sites`` tell what it found.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an option is out of its range, or ``scope`` names no module of ``module``.
        LossOverrideError: in the block at a loss that cannot be replaced safely; at its end if none was.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1))
        >>> logits, target = torch.zeros(2, 3), torch.tensor([0, 2])
        >>> with override_losses(epsilon=1.0) as override:
        ...     loss = nn.functional.cross_entropy(logits, target)
        >>> loss  # log(3) + 2/3
        tensor(1.7653)
    """
    if scope is not None and module is None:
        raise ValueError(f"`scope` {list(scope)} needs `module`, the model that these paths are of")
    return LossOverride(
        epsilon, losses=losses, scope=scope, module=module, elementwise=elementwise, on_nothing=on_nothing
    )


_UNSEEN = (
    "No call of them was seen. A loss written by hand, in TorchScript, in a custom kernel or called in another thread "
    "cannot be."
)
