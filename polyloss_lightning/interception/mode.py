"""The mode that intercepts calls of torch functions and replaces losses among them."""

import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from polyloss_lightning.core import Entries, Observer, Polynomial, Sigmoid
from polyloss_lightning.core.entries import observe
from polyloss_lightning.interception import call_sites, compiled_code
from polyloss_lightning.interception.backward import BACKWARD_PASSES, in_backward_pass, run_in
from polyloss_lightning.interception.call_sites import CallSite
from polyloss_lightning.interception.compiled_code import outside_of_graphs, skip_as_frame
from polyloss_lightning.interception.exponentials import ExponentialCheck, LossOverrideError
from polyloss_lightning.interception.functions import LOSS_FUNCTIONS, NO_TARGET, LossName, bind
from polyloss_lightning.interception.scope import Scope

Elementwise: TypeAlias = Literal["error", "apply", "skip"]

_WATCHED = dict.fromkeys([*LOSS_FUNCTIONS, *BACKWARD_PASSES])
_NEW_FOR = 4
_NO_FULLGRAPH = "an override replaces losses outside of the graph: compile this code without fullgraph=True"


class LossMode(TorchFunctionMode):
    """Replaces the losses called while the mode is active, in the thread that entered it.

    The mode intercepts every torch function, so :meth:`__torch_function__` does as little as possible for functions
    that are not losses. The caller of a loss is found on the Python stack, so the graph of ``torch.compile`` breaks at
    the loss. In the step in which a loss is new, compiled code runs uncompiled from the loss on, so that what becomes
    of the loss can be followed.

    The arguments are those of :func:`~polyloss_lightning.interception.override_losses`.
    """

    def __init__(self, losses: tuple[LossName, ...], scope: Scope | None, elementwise: Elementwise) -> None:
        super().__init__()
        self.losses = losses
        self.scope = scope
        self.elementwise = elementwise
        self.epsilon: tuple[float, ...] = (1.0,)
        self.replacing: bool | None = None  # False: losses are only observed; None: outside of a block
        self.trains = True  # whether gradients were enabled when the mode was entered
        self.observers: OrderedDict[int, tuple[str, Observer]] = OrderedDict()
        self.sites: dict[tuple[str, ...], CallSite] = {}
        self.exponentials = ExponentialCheck(strict=elementwise == "apply")
        self._uncompiled = ExitStack()
        self._compiled: int | None = None
        # Number of backward passes after which what is left of the losses is still followed. To follow that in every
        # step would take too long.
        self._new_for = 0
        self._compiled_since = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace losses, run backward passes inside of the mode, and call every other function unchanged."""
        if func not in _WATCHED:
            if self.exponentials.following and not torch.compiler.is_compiling():
                return self.exponentials.call(func, args, kwargs or {})
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        if func not in LOSS_FUNCTIONS:
            return self._backward(func, types, args, kwargs)
        loss = self._in_plain_python(func, args, kwargs)
        return func(*args, **kwargs) if loss is None else loss

    @outside_of_graphs(_NO_FULLGRAPH)
    def _in_plain_python(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """Return the loss that replaces this call, or None if the call is not replaced."""
        loss: Tensor | None
        loss, is_new = self._by_stack(func, args, kwargs)
        if is_new or (loss is not None and self._compiled_since):
            # What becomes of the loss can be followed only in code that is not compiled.
            compiled_code.leave_compiled_code(self._uncompiled)
        return loss

    # The caller can be found only on the stack of code that runs as plain Python.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _by_stack(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Tensor | None, bool]:
        """Return the loss that replaces this call, if any, and whether a call from this place is replaced first now."""
        frame = call_sites.caller()
        call = bind(func, args, kwargs)
        name, reduction, focal = call.name, call.reduction, None
        if name == "binary_cross_entropy_with_logits" and call_sites.in_sigmoid_focal_loss(frame):
            name, focal = "sigmoid_focal_loss", frame.f_locals
            reduction = focal["reduction"]
        where = call_sites.location(frame)
        why_not = self._why_not(name, reduction, where)
        # During a backward pass, activation checkpointing repeats calls that were already seen in the forward pass.
        seen = in_backward_pass()
        is_new = False
        if self.replacing and not seen:
            site = CallSite(name, reduction, where, not why_not, why_not)
            known = self.sites.setdefault((name, reduction, where, why_not), site)
            known.shape, known.calls = tuple(call.input.shape), known.calls + 1
            is_new = known is site and site.replaced
        if why_not:
            return None, False
        if self.replacing and self.trains and not torch.is_grad_enabled():
            _refuse_reentrant_checkpoint(name, where)
        polynomial, observed = Polynomial(self.epsilon), call
        if focal is not None:
            polynomial = polynomial._replace(gamma=float(focal["gamma"]))
            observed = call._replace(link=Sigmoid(ignore_index=NO_TARGET, alpha=float(focal["alpha"])))

        def on_entries(entries: Entries) -> None:
            observation = observe(entries, polynomial, reduction)
            for observed_name, observer in list(self.observers.values()):
                if observed_name == name:
                    observer(observation)

        notify = on_entries if self.observers and not seen else None
        if notify and (focal is not None or not self.replacing):
            # Compute the entries here if nothing is replaced, or if only the cross-entropy in a focal loss is replaced.
            with torch.no_grad():
                observed.loss(polynomial, notify)
            notify = None
        if not self.replacing:
            return None, False
        # No function that an outer mode replaces is called, so epsilon is applied once.
        result = call.loss(Polynomial(self.epsilon), notify)
        if not seen:
            self.exponentials.add(result, thoroughly=is_new)
            self._new_for = _NEW_FOR if is_new else self._new_for
        return result, is_new

    @outside_of_graphs(_NO_FULLGRAPH)
    def _backward(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.exponentials.refuse(args[:1] or kwargs)
        with self.exponentials.paused() as outermost:
            result = run_in(self, func, types, args, kwargs)
        if outermost and not kwargs.get("retain_graph") and not kwargs.get("create_graph"):
            self.exponentials.forget(keep="all" if self._new_for else "exponentials")
            self._new_for = max(0, self._new_for - 1)
            self._uncompiled.close()
        return result

    def begin_step(self) -> None:
        """Forget the losses of the step before. If code was compiled in it, what becomes of the losses is unknown."""
        self.trains = torch.is_grad_enabled()
        self.exponentials.forget(keep="all" if self._new_for else "nothing")
        before, self._compiled = self._compiled, compiled_code.frames_compiled()
        self._compiled_since = before is not None and before != self._compiled

    def end_step(self) -> None:
        """Let compiled code run again as such."""
        self.exponentials.forget(keep="all")
        self._uncompiled.close()

    def _why_not(self, name: LossName, reduction: str, where: str) -> str:
        """Return why a call is not replaced; empty if it is."""
        if name not in self.losses:
            return "not in losses"
        if self.scope is not None and not self.scope.running():
            return "outside of scope"
        if reduction != "none" or name == "sigmoid_focal_loss" or self.elementwise == "apply":
            return ""
        if self.elementwise == "error" and self.replacing:
            raise LossOverrideError(
                f"{where} calls {name} with reduction='none'. Not every use of the result can be checked: masking or "
                "averaging it is fine, but a focal loss that computes pt = exp(-ce) would be corrupted. Choose "
                "elementwise='apply' to replace it or elementwise='skip' to leave it unchanged, or exclude it with "
                "`losses` or `scope`"
            )
        return "elementwise='skip'"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "observers": OrderedDict(), "_uncompiled": ExitStack(), "replacing": None}


def _refuse_reentrant_checkpoint(name: str, where: str) -> None:
    forward = CheckpointFunction.forward.__code__
    if any(above.f_code is forward for above in call_sites.stack(sys._getframe())):
        raise LossOverrideError(
            f"{where} calls {name} inside of reentrant activation checkpointing, which recomputes the loss in "
            "the backward pass, where it cannot be replaced: use torch.utils.checkpoint.checkpoint(use_reentrant=False)"
        )


skip_as_frame(LossMode.__torch_function__)
