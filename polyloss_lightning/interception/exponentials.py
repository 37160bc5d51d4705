"""Refusing to train with exponentials of replaced losses, as in a focal loss that computes Pt as ``exp(-ce)``."""

import warnings
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

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
# Functions of which the result is computed from their arguments, in the obvious way. Only for speed.
_ARITHMETIC = frozenset(
    "add sub mul div neg sum mean __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __neg__ "  # noqa: SIM905
    "true_divide detach view reshape flatten stack cat".split()
)


class LossOverrideError(RuntimeError):
    """Raised if a loss cannot be replaced safely, or if no loss was replaced."""


class ExponentialCheck:
    """Follows replaced losses through a step, and refuses an exponential of them that takes part in the gradient.

    Two sets of storages are kept: those computed from a replaced loss, and those computed from an exponential of one.
    Storages, because views and buffers share them. A hook on each differentiable tensor of the second kind raises when
    a gradient arrives. A perplexity that is only logged never receives one.

    Args:
        strict: whether scripted code that cannot be looked into is refused; otherwise there is a warning.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._losses: dict[int, StorageWeakRef] = {}
        self._exponentials: dict[int, tuple[StorageWeakRef, str]] = {}
        self._operators = _Operators(self)
        self._nodes: set[Any] = set()

    @property
    def active(self) -> bool:
        """Whether there is anything to follow."""
        return bool(self._losses)

    def add(self, loss: Tensor, *, thoroughly: bool) -> None:
        """Follow a replaced loss; thoroughly: also through scripted code, by the graph of autograd."""
        self._mark(loss, None)
        if thoroughly and loss.grad_fn is not None:
            self._nodes.add(loss.grad_fn)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Follow nothing in a backward pass, in which no loss is new, but compiled code calls many functions."""
        losses, self._losses = self._losses, {}
        try:
            yield
        finally:
            self._losses = losses

    def forget(self) -> None:
        """Follow nothing any more; an exponential that takes part in a gradient is still refused."""
        self._losses.clear()
        self._exponentials.clear()
        self._nodes.clear()

    def forget_dead(self) -> None:
        """Follow only what still exists, such as a running mean of the loss that weights the next step."""
        self._losses = {key: mark for key, mark in self._losses.items() if not mark.expired()}  # type: ignore[no-untyped-call]
        self._exponentials = {key: mark for key, mark in self._exponentials.items() if key in self._losses}
        self._nodes.clear()

    def forget_nodes(self) -> None:
        """Do not keep the graph of autograd any longer."""
        self._nodes.clear()

    def forget_losses(self) -> None:
        """Follow only exponentials that still exist. Called after a backward pass, which is the end of most losses."""
        self._exponentials = {key: mark for key, mark in self._exponentials.items() if not mark[0].expired()}  # type: ignore[no-untyped-call]
        self._losses = {key: reference for key, (reference, _) in self._exponentials.items()}
        self._nodes.clear()

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``func``, and follow the losses among its arguments."""
        keys = [_key(tensor) for tensor in _tensors((args, kwargs))]
        if not any(key is None or key in self._losses or key in self._exponentials for key in keys):
            return func(*args, **kwargs)
        if not self._exponentials and "out" not in kwargs and getattr(func, "__name__", "") in _ARITHMETIC:
            result = func(*args, **kwargs)
            for tensor in _tensors(result):
                self._mark(tensor, None)
            return result
        with self._operators:
            result = func(*args, **kwargs)
        if self._exponentials:
            for tensor in _tensors((result, args[:1], kwargs.get("out"))):
                message = self.exponential_in(tensor)
                if message and tensor.requires_grad and not tensor.is_leaf:
                    tensor.register_hook(partial(_refuse, message))  # type: ignore[no-untyped-call]
        return result

    def exponential_in(self, tensor: Tensor) -> str:
        """Return why ``tensor`` cannot be trained with; empty if it can be."""
        _, message = self._exponentials.get(_key(tensor) or 0, (None, ""))
        return message

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
                warnings.warn(f"It cannot be seen whether {_message('scripted code', 'an exponential')}", stacklevel=2)

    def follow(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Mark the results of one of torch's operators."""
        name = operator.name().partition("::")[2].partition(".")[0].removeprefix("_foreach_")
        if name.endswith("_like") or name.startswith("new_"):  # of the argument only its shape and dtype are used
            return
        keys = {_key(tensor) for tensor in _tensors((args, kwargs))}
        message = next((self._exponentials[key][1] for key in keys if key in self._exponentials), None)
        in_place = name.endswith("_")
        name = name if name in EXPONENTIALS else name.rstrip("_")
        exponents = (args[1:], kwargs) if name in _POWERS else (args, kwargs)
        exponential = name in EXPONENTIALS | _POWERS
        if message is None and exponential and any(_key(part) in self._losses for part in _tensors(exponents)):
            message = _message(call_sites.location(call_sites.caller()), name)
        if message is None and not any(key in self._losses for key in keys):
            return
        for tensor in _tensors((result, args[:1]) if in_place else result):
            # Masks and indices made from a loss are no losses, but those made from a wrong Pt are wrong.
            if message is not None or tensor.is_floating_point() or tensor.is_complex():
                self._mark(tensor, message)

    def _mark(self, tensor: Tensor, message: str | None) -> None:
        key = _key(tensor)
        if key is not None:
            storage = _unwrapped(tensor).untyped_storage()
            self._losses[key] = reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            if message is not None:
                self._exponentials[key] = (reference, message)

    def __reduce__(self) -> Any:
        return partial(ExponentialCheck, strict=self._strict), ()


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Passes every operator that a function is made of to an :class:`ExponentialCheck`."""

    def __init__(self, check: ExponentialCheck) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._check = check

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._check.follow(func, args, kwargs or {}, result)
        return result


def _message(where: str, name: str) -> str:
    return (
        f"{where} calls {name} on a replaced loss, and the result takes part in "
        "what is trained. If this is pt = exp(-ce), it is correct only for plain cross-entropy, and would be wrong "
        "here: exclude this loss with `losses`, `scope` or elementwise='skip', or use Poly1FocalLoss instead of the "
        "focal loss. If an exponential of the loss is meant, such as a softmax over losses, let the module derive "
        "from LossProvider and use its loss, instead of an override"
    )


def _refuse(message: str, gradient: Tensor | None = None) -> NoReturn:
    raise LossOverrideError(message)


def _between(root: Any, targets: Set[Any]) -> Set[Any]:
    """Return the nodes of a graph of autograd on the ways from ``root`` to ``targets``, without the targets."""
    users: dict[Any, list[Any]] = {root: []}
    todo = [root]
    while todo:
        node = todo.pop()
        for used, _ in () if node in targets else node.next_functions:
            if used is None:
                continue
            if used not in users:
                users[used] = []
                todo.append(used)
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
        # Without this private name, empty tensors would all be the same.
        return int(getattr(storage, "_cdata", None) or storage.data_ptr())
    except (NotImplementedError, RuntimeError):
        return None


def _unwrapped(tensor: Tensor) -> Tensor:
    """Return the tensor inside of the wrappers of ``torch.func``."""
    functorch = getattr(torch._C, "_functorch", None)
    if functorch is not None:
        while functorch.is_functorch_wrapped_tensor(tensor):
            tensor = functorch.get_unwrapped(tensor)
    return tensor
