"""The mode that intercepts calls of torch functions and replaces losses among them."""

import contextlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import _reduction
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from polyloss_lightning.core import Entries, Observer, Polynomial, Reduction, Sigmoid, SigmoidFocal
from polyloss_lightning.core.loss import loss
from polyloss_lightning.core.observation import observe
from polyloss_lightning.interception import call_sites
from polyloss_lightning.interception.backward import BACKWARD_PASSES, run_in
from polyloss_lightning.interception.call_sites import CallSite
from polyloss_lightning.interception.functions import LOSS_FUNCTIONS, NO_TARGET, Call, LossFunction, LossName
from polyloss_lightning.interception.scope import Scope

Elementwise: TypeAlias = Literal["error", "apply", "skip"]

_WATCHED: dict[Callable[..., Any], LossFunction | None] = {**LOSS_FUNCTIONS, **dict.fromkeys(BACKWARD_PASSES)}
_NOT_SELECTED = "not in losses"
_SKIPPED = "elementwise='skip'"


class LossOverrideError(RuntimeError):
    """Raised if a loss cannot be replaced safely, or if no loss was replaced."""


class LossMode(TorchFunctionMode):
    """Replaces the losses called while the mode is active, in the thread that entered it.

    The mode intercepts every torch function, so :meth:`__torch_function__` does as little as possible for functions
    that are not losses. If ``torch.compile`` traces the call, the replaced loss becomes part of the graph. If the
    Python stack is needed (for a scope, an observer or a loss without gradient), the graph breaks at the loss.

    Args:
        losses: names of the functions to replace.
        scope: the modules inside of which losses are replaced; None replaces them everywhere.
        elementwise: what to do with a loss of reduction ``"none"``.

    Attributes:
        epsilon: the current perturbations.
        replacing: whether losses are replaced; otherwise they are only observed.
        trains: whether gradients were enabled when the mode was entered.
    """

    def __init__(self, losses: tuple[LossName, ...], scope: Scope | None, elementwise: Elementwise) -> None:
        super().__init__()
        self.losses = losses
        self.scope = scope
        self.elementwise = elementwise
        self.epsilon: tuple[float, ...] = (1.0,)
        self.replacing = True
        self.trains = True
        self.observers: OrderedDict[int, tuple[str, Observer]] = OrderedDict()
        self.sites: dict[tuple[str, ...], CallSite] = {}
        self.traced = _Traced()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace losses, run backward passes inside of the mode, and call every other function unchanged."""
        if func not in _WATCHED:
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        function = _WATCHED[func]
        if function is None:
            return run_in(self, func, types, args, kwargs)
        if torch.compiler.is_compiling():
            return self._in_graph(func, function, args, kwargs)
        loss = self._by_stack(function, args, kwargs)
        return func(*args, **kwargs) if loss is None else loss

    # Compilation is disabled because the caller can only be found on the stack of code that runs as plain Python.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _by_stack(self, function: LossFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """Return the loss that replaces this call, or None if the call is not replaced."""
        frame = call_sites.caller()
        call = function.bind(*args, **kwargs)
        name, reduction = function.name, call.reduction
        focal: Mapping[str, Any] | None = None
        if name == "binary_cross_entropy_with_logits" and call_sites.in_sigmoid_focal_loss(frame):
            name, focal = "sigmoid_focal_loss", frame.f_locals
            reduction = focal["reduction"]
        where = call_sites.location(frame)
        why_not = self._why_not(name)
        if not why_not and focal is None and reduction == "none":
            why_not = self._why_not_elementwise(name, where)
        # During a backward pass, activation checkpointing repeats calls that were already seen in the forward pass.
        seen = torch._C._current_graph_task_id() != -1
        if self.replacing and not seen:
            self._note(CallSite(name, reduction, where, not why_not, why_not), tuple(call.input.shape))
        if why_not:
            return None
        if self.replacing and self._in_no_grad():
            _refuse_reentrant_checkpoint(name, where)
        polynomial, link = Polynomial(self.epsilon), call.link
        if focal is not None:
            polynomial = polynomial._replace(gamma=float(focal["gamma"]))
            link = SigmoidFocal(focal["alpha"], ignore_index=NO_TARGET)

        def on_entries(entries: Entries) -> None:
            observation = observe(entries, polynomial, reduction)
            for observed, observer in list(self.observers.values()):
                if observed == name:
                    observer(observation)

        observing = self.observers and not seen
        if observing and (focal is not None or not self.replacing):
            # Compute the entries here if nothing is replaced, or if only the cross-entropy in a focal loss is replaced.
            with torch.no_grad():
                link, input = call.link_and_input() if focal is None else (link, call.input)
                on_entries(link.entries(input, call.target))
            observing = False
        return self.loss(call, on_entries if observing else None) if self.replacing else None

    def _in_graph(
        self, func: Callable[..., Any], function: LossFunction, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Do the same for code that is being traced, using only facts that hold in every run of the graph."""
        focal, where = call_sites.traced_caller()
        call = function.bind(*args, **kwargs)
        name: LossName = function.name
        if focal and name == "binary_cross_entropy_with_logits":
            name = "sigmoid_focal_loss"
        why_not = "" if name in self.losses else _NOT_SELECTED
        needs_stack = self.scope is not None or not self.replacing or self.observers or self._in_no_grad()
        if not why_not and call.reduction == "none" and name != "sigmoid_focal_loss":
            if self.elementwise == "apply" and self.replacing:
                _refuse_elementwise_in_graph(name, where)
            needs_stack = needs_stack or self.elementwise == "error"
            why_not = _SKIPPED
        if needs_stack and why_not != _NOT_SELECTED:
            loss = self._by_stack(function, args, kwargs)
            return func(*args, **kwargs) if loss is None else loss
        if self.replacing:
            # Set an attribute with a constant name: this happens in every run of the graph and causes no recompilation.
            site = _as_attribute(name, call.reduction, where, why_not)
            setattr(self.traced, site, tuple(call.input.shape))
        if not why_not:
            return self.loss(call)
        if isinstance(call.link, Sigmoid):
            # Do not call func: the backend "eager" would run it under this mode again, without knowledge of its caller.
            weight, pos_weight, _ = call.link
            reduction = _reduction.get_enum(call.reduction)
            return torch.binary_cross_entropy_with_logits(call.input, call.target, weight, pos_weight, reduction)
        return func(*args, **kwargs)

    def loss(self, call: Call, on_entries: Callable[[Entries], None] | None = None) -> Tensor:
        """Return the replaced loss. No function that an outer mode replaces is called, so epsilon is applied once."""
        reduction = cast(Reduction, call.reduction)
        link, input = call.link_and_input()
        return loss(link, input, call.target, Polynomial(self.epsilon), reduction, on_entries)

    def _in_no_grad(self) -> bool:
        """Return whether gradients are disabled now but not in the block, as in reentrant activation checkpointing."""
        return self.trains and not torch.is_grad_enabled()

    def _why_not(self, name: LossName) -> str:
        if name not in self.losses:
            return _NOT_SELECTED
        if self.scope is not None and not self.scope.running():
            return "outside of scope"
        return ""

    def _why_not_elementwise(self, name: LossName, where: str) -> str:
        if self.elementwise == "error" and self.replacing:
            raise LossOverrideError(
                f"{where} calls {name} with reduction='none'. The use of the result cannot be checked: masking or "
                "averaging it is fine, but a focal loss that computes pt = exp(-ce) would be corrupted. Choose "
                "elementwise='apply' to replace it or elementwise='skip' to leave it unchanged, or exclude it with "
                "`losses` or `scope`"
            )
        return "" if self.elementwise == "apply" else _SKIPPED

    def _note(self, site: CallSite, shape: tuple[int, ...]) -> None:
        site = self.sites.setdefault((site.function, site.reduction, site.location, site.reason), site)
        site.shape = shape
        site.calls += 1

    def call_sites(self) -> list[CallSite]:
        """Return the call sites found so far, including those in compiled code."""
        traced, self.traced = self.traced, _Traced()
        for key, shape in vars(traced).items():
            name, reduction, where, why_not = _from_attribute(key)
            self._note(CallSite(name, reduction, where, not why_not, why_not), shape)
        # The backend "eager" runs the generated code of a graph. Its calls were already noted when it was traced.
        return [site for site in self.sites.values() if not site.location.startswith("<eval_with_key>")]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "observers": OrderedDict()}


class _Traced:
    """Call sites inside of compiled code: one attribute per site, its name the encoded site, its value the shape."""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _as_attribute(*site: str) -> str:
    return "_" + "\n".join(site).encode().hex()


def _from_attribute(attribute: str) -> list[str]:
    return bytes.fromhex(attribute[1:]).decode().split("\n")


def _refuse_reentrant_checkpoint(name: str, where: str) -> None:
    forward = CheckpointFunction.forward.__code__
    if any(above.f_code is forward for above in call_sites.stack(sys._getframe())):
        raise LossOverrideError(
            f"{where} calls {name} inside of reentrant activation checkpointing, which recomputes the loss in "
            "the backward pass, where it cannot be replaced: use torch.utils.checkpoint.checkpoint(use_reentrant=False)"
        )


# Raised while the graph is traced, because a graph break would hide the error.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _refuse_elementwise_in_graph(name: str, where: str) -> None:
    raise LossOverrideError(
        f"{where} calls {name} with reduction='none' in compiled code, where elementwise='apply' cannot see whether a "
        "focal loss computes pt = exp(-ce) from it: leave this part uncompiled, or set elementwise='skip'"
    )


def skip_as_frame(function: Callable[..., Any]) -> None:
    """Make torch.compile trace ``function`` only when it is inlined into a graph, never on its own.

    Code between two graphs runs as plain Python. There, torch.compile would otherwise compile ``__torch_function__``
    separately for every torch function that is called.
    """
    with contextlib.suppress(ImportError):
        from torch._dynamo.decorators import skip_code  # type: ignore[attr-defined]

        skip_code(function.__code__)


skip_as_frame(LossMode.__torch_function__)
