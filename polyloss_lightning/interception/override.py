"""Replacing torch's loss functions inside of a ``with`` block."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from torch import nn
from torch.utils.hooks import RemovableHandle

from polyloss_lightning._checks import check_choice
from polyloss_lightning.core import Observer, polynomial
from polyloss_lightning.interception.call_sites import CallSite, table
from polyloss_lightning.interception.exponentials import LossOverrideError
from polyloss_lightning.interception.functions import LossName, check_losses
from polyloss_lightning.interception.mode import Elementwise, LossMode
from polyloss_lightning.interception.scope import Scope

OnNothing: TypeAlias = Literal["error", "warn"]


class LossOverride:
    """Replaces torch's loss functions; returned and documented by :func:`override_losses`."""

    def __init__(
        self,
        epsilon: float | Sequence[float] = 1.0,
        *,
        losses: Sequence[LossName] | None = None,
        scope: Sequence[str] | None = None,
        elementwise: Elementwise = "error",
        on_nothing: OnNothing = "error",
    ) -> None:
        check_choice("elementwise", elementwise, get_args(Elementwise))
        check_choice("on_nothing", on_nothing, get_args(OnNothing))
        self.on_nothing = on_nothing
        self._blocks: list[AbstractContextManager[None]] = []  # the `with` blocks of this object that are open
        self._mode = LossMode(check_losses(losses), None if scope is None else Scope(scope), elementwise)
        self.epsilon = epsilon

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """The current epsilon, a number or a tuple for Poly-N. A new value is validated and needs no recompilation."""
        epsilon = self._mode.epsilon
        return epsilon[0] if len(epsilon) == 1 else epsilon

    @epsilon.setter
    def epsilon(self, epsilon: float | Sequence[float]) -> None:
        old, new = self._mode.epsilon, polynomial.as_epsilon(epsilon)
        polynomial.warn_of_sign_flip(old, new, stacklevel=3)
        self._mode.epsilon = new

    def resolve_scope(self, module: nn.Module) -> None:
        """Find the modules of ``module`` in the scope, or raise ``ValueError`` if one of its patterns matches none."""
        if self._mode.scope is not None:
            self._mode.scope.resolve(module)

    @property
    def call_sites(self) -> list[CallSite]:
        """The loss calls found so far, one entry per line of code, with the reason if a call was not replaced."""
        return list(self._mode.sites.values())

    def table(self) -> str:
        """:attr:`call_sites` as text."""
        return table(self.call_sites)

    def observables(self) -> dict[str, "ReplacedLoss"]:
        """Return the functions that are replaced, by name; each can be observed."""
        return {name: ReplacedLoss(self, name) for name in self._mode.losses}

    @property
    def observed(self) -> bool:
        """Whether an observer is registered."""
        return bool(self._mode.observers)

    @contextmanager
    def intercepting(self, *, replace: bool = True) -> Iterator[None]:
        """Replace the losses while the block runs, or only pass their calls to the observers."""
        mode, before = self._mode, self._mode.replacing
        if before is None:  # the outermost block
            mode.begin_step()
        mode.replacing = replace
        try:
            with mode:
                yield
        finally:
            mode.replacing = before
            if before is None:
                mode.end_step()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": []}  # a copy made within a block is not within it

    def forget(self) -> None:
        """Discard the call sites found so far."""
        self._mode.sites = {}

    def refuse(self, output: Any) -> None:
        """Raise if the loss in the ``output`` of a step is computed from an exponential of a replaced loss."""
        self._mode.exponentials.refuse(output.get("loss") if isinstance(output, Mapping) else output)

    def check(self) -> None:
        """Raise ``LossOverrideError``, or warn if ``on_nothing="warn"``, if no loss has been replaced so far."""
        sites = self.call_sites
        if any(site.replaced for site in sites):
            return
        seen = (
            "No call of these functions was seen. Losses that are written by hand, in TorchScript or in a custom "
            "kernel, or that are called in another thread, cannot be intercepted."
        )
        if sites:
            seen = f"Calls seen:\n{table(sites)}"
        within = "" if self._mode.scope is None else f"; within {self._mode.scope}"
        message = f"No loss was replaced. Looked for: {', '.join(self._mode.losses)}{within}.\n{seen}"
        if self.on_nothing == "error":
            raise LossOverrideError(f"{message}\nSet on_nothing='warn' to continue anyway.")
        warnings.warn(message, stacklevel=2)

    def __enter__(self) -> "LossOverride":
        self._blocks.append(self.intercepting())
        self._blocks[-1].__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> None:
        self._blocks.pop().__exit__(kind, *details)
        if kind is None:
            self.check()


class ReplacedLoss(NamedTuple):
    """One of the functions that an override replaces, which can be observed as a loss module can."""

    override: LossOverride
    name: str

    @property
    def epsilon(self) -> float | tuple[float, ...]:
        """The perturbation in force."""
        return self.override.epsilon

    def register_observer(self, observer: Observer) -> RemovableHandle:
        """Call ``observer`` after every later call of the function, until the handle is removed."""
        observers = self.override._mode.observers
        handle = RemovableHandle(observers)
        observers[handle.id] = (self.name, observer)
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
    r"""Replace torch's loss functions by Poly-1 losses while a block runs, in any code.

    :math:`\sum_j \epsilon_j (1-P_t)^j` is added per entry to every call of one of the ``losses``, whichever module
    makes the call and under whichever name it imported the function. The sum is weighted and reduced according to the
    arguments of the call: ``weight``, ``ignore_index``, ``label_smoothing``, ``pos_weight``, ``reduction``, soft
    targets and the dtype of the result are all kept. Losses of this package are not replaced. If blocks are nested,
    the innermost one applies.

    A focal loss that computes Pt as ``exp(-ce)`` would be corrupted. An exponential of a replaced loss (``exp``, a
    sigmoid, a softmax over losses) is therefore refused if it takes part in a gradient: at the latest, the backward
    pass raises. (Numbers that leave torch, by ``.item()`` or NumPy, cannot be followed.) If the exponential is meant,
    use a loss of this package with :class:`~polyloss_lightning.LossProvider`. Other values computed from a replaced
    loss, such as a perplexity, come from the Poly loss, not from torch's.

    In compiled code, the graph breaks at a replaced loss, and ``fullgraph=True`` is refused. The block affects only the
    thread that enters it. It has to include the backward pass if the model recomputes activations
    (``torch.utils.checkpoint``). Otherwise the forward pass is enough.

    Args:
        epsilon: a finite number (Poly-1) or a sequence (Poly-N). Assign to ``override.epsilon`` to change it later.
        losses: the functions to replace: ``"cross_entropy"`` (with :class:`torch.nn.CrossEntropyLoss`),
            ``"binary_cross_entropy_with_logits"``, ``"sigmoid_focal_loss"`` of torchvision, ``"linear_cross_entropy"``
            and ``"nll_loss"``. None replaces all except the last one, whose input is often not a log-probability.
        scope: paths of modules in ``module``, or glob patterns; only losses called inside of these modules are
            replaced. None replaces losses everywhere.
        module: the model that contains the modules named in ``scope``.
        elementwise: what to do with a loss of reduction ``"none"``. Masking and averaging it is fine, but a focal loss
            that computes Pt as ``exp(-ce)`` through NumPy or ``.item()`` would be corrupted unnoticed. ``"error"``
            raises at every such loss, ``"apply"`` replaces it, and ``"skip"`` does not replace it. (torchvision's focal
            loss is recognized and always replaced correctly.)
        on_nothing: ``"error"`` or ``"warn"``: what to do at the end of the block if no loss was replaced.

    Returns:
        A context manager. ``override.table()`` and ``override.call_sites`` list the calls that it found.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range, or if a pattern of ``scope`` matches no module of ``module``.
        LossOverrideError: inside of the block, at a loss that cannot be replaced safely; in a backward pass through an
            exponential of a replaced loss; at the end of the block, if no loss was replaced.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1))
        >>> logits, target = torch.zeros(2, 3), torch.tensor([0, 2])
        >>> with override_losses(epsilon=1.0) as override:
        ...     loss = nn.functional.cross_entropy(logits, target)
        >>> loss  # log(3) + 2/3
        tensor(1.7653)
    """
    override = LossOverride(epsilon, losses=losses, scope=scope, elementwise=elementwise, on_nothing=on_nothing)
    if scope is not None and module is None:
        raise ValueError(f"`scope` {list(scope)} needs `module`, the model that contains these paths")
    if module is not None:
        override.resolve_scope(module)
    return override
