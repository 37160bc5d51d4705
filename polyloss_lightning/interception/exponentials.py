"""Refusing to train with exponentials of replaced losses, as in a focal loss that computes Pt as ``exp(-ce)``."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from polyloss_lightning.interception import call_sites

# Names of operators: the functions of torch.nn and torch.special are made of them.
EXPONENTIALS = frozenset(
    "exp exp2 expm1 sigmoid tanh sinh cosh softplus log_sigmoid log_sigmoid_forward elu celu silu mish gelu glu "  # noqa: SIM905
    "softmax _softmax _safe_softmax _masked_softmax log_softmax _log_softmax logsumexp _logcumsumexp logcumsumexp "
    "logaddexp logaddexp2 erf erfc special_erfcx special_ndtr special_log_ndtr matrix_exp linalg_matrix_exp "
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention".split()
)
# Their nodes in the graph of autograd, and those of their variants.
_NODES = frozenset(name.replace("_", "") for name in EXPONENTIALS)
_POWERS = frozenset({"pow", "ldexp"})
# Functions whose result depends on their arguments and contains no exponential. Listed only to save time.
_ARITHMETIC = frozenset(
    "add sub mul div neg sum mean __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __neg__ "  # noqa: SIM905
    "true_divide detach view reshape flatten stack cat".split()
)


class LossOverrideError(RuntimeError):
    """Raised if a loss cannot be replaced safely, or if no loss was replaced."""


class ExponentialCheck(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows replaced losses through a step, and refuses an exponential of them that takes part in the gradient.

    Two sets of storages are kept: those computed from a replaced loss, and those computed from an exponential of one.
    Storages, because views and buffers share them. A hook on each differentiable tensor of the second kind raises when
    a gradient arrives. A perplexity that is only logged never receives one. While the mode is active, it sees every
    operator that a function is made of. Scripted code that cannot be looked into is refused if ``strict``; otherwise
    there is a warning.
    """

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._strict = strict
        self._losses: dict[int, StorageWeakRef] = {}
        self._exponentials: dict[int, str] = {}  # which of them are exponentials, and the message about each
        self._nodes: set[Any] = set()
        self._paused = False
        # Whether there are losses: a plain attribute, because torch.compile would compile again for each dictionary.
        self.following = False

    def add(self, loss: Tensor, *, thoroughly: bool) -> None:
        """Follow a replaced loss; if ``thoroughly``, also through scripted code, along the graph of autograd."""
        self._mark(loss)
        if thoroughly and loss.grad_fn is not None:
            self._nodes.add(loss.grad_fn)

    @contextmanager
    def paused(self) -> Iterator[bool]:
        """Follow nothing in a backward pass, in which no loss is new; yield False inside of another backward pass."""
        before, self._paused = self._paused, True
        try:
            yield not before
        finally:
            self._paused = before

    def forget(self, *, keep: Literal["all", "exponentials", "nothing"]) -> None:
        """Forget the nodes of autograd, tensors that no longer exist, and whatever ``keep`` does not name.

        Most losses are finished after a backward pass, but an exponential may still be used in a later one, and a
        running mean of losses may weight the next step.
        """
        self._nodes.clear()
        if not self._losses:
            return
        kept: Iterable[int] = self._losses if keep == "all" else self._exponentials if keep == "exponentials" else ()
        self._losses = {key: self._losses[key] for key in kept if not self._losses[key].expired()}  # type: ignore[no-untyped-call]
        self._exponentials = {key: message for key, message in self._exponentials.items() if key in self._losses}
        self.following = bool(self._losses)

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``func``, and follow the losses among its arguments."""
        keys = [] if self._paused else [_key(tensor) for tensor in _tensors((args, kwargs))]
        if not any(key is None or key in self._losses for key in keys):
            return func(*args, **kwargs)
        if not self._exponentials and "out" not in kwargs and getattr(func, "__name__", "") in _ARITHMETIC:
            result = func(*args, **kwargs)
            for tensor in _tensors(result):
                self._mark(tensor)
            return result
        with self:
            result = func(*args, **kwargs)
        if self._exponentials:
            for tensor in _tensors((result, args[:1], kwargs.get("out"))):
                message = self.exponential_in(tensor)
                if message and tensor.requires_grad and not tensor.is_leaf:
                    tensor.register_hook(partial(_refuse, message))  # type: ignore[no-untyped-call]
        return result

    def exponential_in(self, tensor: Tensor) -> str:
        """Return why ``tensor`` cannot be trained with; empty if it can be."""
        return self._exponentials.get(_key(tensor) or 0, "")

    def refuse(self, tensors: Any) -> None:
        """Raise if one of ``tensors``, which are what is trained with, is computed from an exponential of a loss."""
        for tensor in _tensors(tensors):
            message = self.exponential_in(tensor)
            if message:
                _refuse(message)
            if self._nodes and tensor.grad_fn is not None:
                self._look_into_scripts(tensor.grad_fn)

    def _look_into_scripts(self, root: Any) -> None:
        """Look for exponentials between what is trained with and the losses in the graph of autograd."""
        for node in _between(root, self._nodes):
            name = node.name().rpartition("::")[2].partition("Backward")[0]
            if name.lower() in _NODES:
                _refuse(_message("Scripted code", name.lower()))
            if name == "DifferentiableGraph" and self._strict:
                _refuse(_message("Scripted code", "unknown operators"))
            if name == "DifferentiableGraph":
                warnings.warn(
                    f"It cannot be determined whether {_message('scripted code', 'an exponential')}", stacklevel=2
                )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one of torch's operators, and mark what it computes from losses."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.name().partition("::")[2].partition(".")[0].removeprefix("_foreach_")
        of_shape = name.endswith("_like") or name.startswith("new_")  # only shape and dtype of the argument are used
        tensors = list(_tensors((args, kwargs)))
        if of_shape or not any(_key(tensor) in self._losses for tensor in tensors):
            return result
        message = next(filter(None, map(self.exponential_in, tensors)), "")
        in_place = name.endswith("_")
        name = name if name in EXPONENTIALS else name.rstrip("_")
        exponents = (args[1:], kwargs) if name in _POWERS else (args, kwargs)
        exponential = name in EXPONENTIALS | _POWERS
        if not message and exponential and any(_key(part) in self._losses for part in _tensors(exponents)):
            message = _message(call_sites.location(call_sites.caller()), name)
        for tensor in _tensors((result, args[:1]) if in_place else result):
            # Masks and indices made from a loss are no losses, but those made from a wrong Pt are wrong.
            if message or tensor.is_floating_point() or tensor.is_complex():
                self._mark(tensor, message)
        return result

    def _mark(self, tensor: Tensor, message: str = "") -> None:
        key = _key(tensor)
        if key is not None:
            self._losses[key] = StorageWeakRef(_unwrapped(tensor).untyped_storage())  # type: ignore[no-untyped-call]
            self.following = True
            if message:
                self._exponentials[key] = message

    def __reduce__(self) -> Any:
        return partial(ExponentialCheck, strict=self._strict), ()


def _message(where: str, name: str) -> str:
    return (
        f"{where} calls {name} on a replaced loss, and the result contributes to "
        "the gradient. If this is pt = exp(-ce), it is correct only for plain cross-entropy, and would be wrong "
        "here: exclude this loss with `losses`, `scope` or elementwise='skip', or use Poly1FocalLoss instead of the "
        "focal loss. If an exponential of the loss is meant, such as a softmax over losses, let the module derive "
        "from LossProvider and use its loss, instead of an override"
    )


def _refuse(message: str, gradient: Tensor | None = None) -> NoReturn:
    raise LossOverrideError(message)


def _between(root: Any, targets: Set[Any]) -> Set[Any]:
    """Return the nodes of a graph of autograd on the ways from ``root`` to ``targets``, without the targets."""
    users: defaultdict[Any, list[Any]] = defaultdict(list)
    todo = [root]
    while todo:
        node = todo.pop()
        for used, _ in () if node in targets else node.next_functions:
            if used is not None:
                todo += [] if used in users else [used]
                users[used].append(node)
    found: set[Any] = set()
    todo = [node for node in targets if node in users]
    while todo:
        new = set(users[todo.pop()]) - found
        found |= new
        todo += new
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _key(tensor: Tensor) -> int | None:
    """Return what identifies the storage of ``tensor``; None if it has none, as a sparse tensor."""
    try:
        storage = _unwrapped(tensor).untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None
    # Without this private name, empty tensors would all be the same.
    return int(getattr(storage, "_cdata", None) or storage.data_ptr())


def _unwrapped(tensor: Tensor) -> Tensor:
    """Return the tensor inside of the wrappers of ``torch.func``."""
    functorch = getattr(torch._C, "_functorch", None)
    while functorch is not None and functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor
