"""The cases that benchmarks/losses.py measures: logits, targets, losses, and the bounds that the ratios should keep.

This module only defines them. Running it does nothing.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

import polyloss_lightning as poly

EPSILON = 1.0
SMOOTHING = 0.1
POSITIVES = 0.05  # share of ones among targets of 0 and 1

Loss = Callable[[Tensor], Tensor]
LossWithTarget = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One row of the table of times.

    Attributes:
        kind: key of :data:`KINDS`, which says what the target is and which losses are compared.
        shape: shape of the logits.
        note: tells apart cases of the same kind and shape.
        must: largest acceptable ratio to torch's time. Two numbers are for the stock and the warm allocator, one number
            is for both, and without numbers nothing is required.
        aim: ratio worth reaching, written the same way.
        dtype: dtype of the logits.
        autocast: whether to call the losses under bfloat16 autocast.
        channels_last: whether the logits are in channels-last memory format.
        scale: factor of the logits, which are normally distributed.
        usual: whether to time the usual formulation too.
        memory: whether to measure memory.
        observing: whether to time the loss with an observer.
    """

    kind: str
    shape: tuple[int, ...]
    note: str = ""
    must: tuple[float, ...] = ()
    aim: tuple[float, ...] = ()
    dtype: torch.dtype = torch.float32
    autocast: bool = False
    channels_last: bool = False
    scale: float = 1.0
    usual: bool = False
    memory: bool = False
    observing: bool = False

    @property
    def name(self) -> str:
        """What the tables call the case."""
        return f"{self.kind} {list(self.shape)}" + (f", {self.note}" if self.note else "")

    @property
    def numel(self) -> int:
        """Number of logits."""
        return torch.Size(self.shape).numel()


class Kind(NamedTuple):
    """A target and the losses of it; the usual formulation is that of the same Poly-1 loss."""

    target: Callable[[tuple[int, ...]], Tensor]
    ours: Callable[[], LossWithTarget]
    torch: LossWithTarget
    usual: LossWithTarget


class Prepared(NamedTuple):
    """The tensors of a case, and its losses by name: "ours", "torch", "usual" and, if it is timed, "observed"."""

    input: Tensor
    target: Tensor
    losses: dict[str, Loss]


def class_indices(shape: tuple[int, ...]) -> Tensor:
    """One class index for each sample or pixel."""
    return torch.randint(shape[1], (shape[0], *shape[2:]))


def probabilities(shape: tuple[int, ...]) -> Tensor:
    """A distribution over the classes for each sample or pixel."""
    return torch.randn(shape).softmax(1)


def zeros_and_ones(shape: tuple[int, ...]) -> Tensor:
    """A target of 0 or 1 for each logit."""
    return (torch.rand(shape) < POSITIVES).float()


def usual_cross_entropy(input: Tensor, target: Tensor, smoothing: float = 0.0, gamma: float = 0.0) -> Tensor:
    """Poly-1 cross-entropy or focal loss as it is usually written: softmax, one-hot, 1 - pt."""
    q = target
    if not target.is_floating_point():
        q = F.one_hot(target, input.shape[1]).movedim(-1, 1).to(input.dtype)
        q = (1 - smoothing) * q + smoothing / input.shape[1]
    pt = (q * input.softmax(1)).sum(1)
    ce = F.cross_entropy(input, target, reduction="none", label_smoothing=smoothing)
    if gamma == 0:
        return (ce + EPSILON * (1 - pt)).mean()
    return ((1 - pt) ** gamma * ce + EPSILON * (1 - pt) ** (gamma + 1)).mean()


def usual_binary_cross_entropy(input: Tensor, target: Tensor) -> Tensor:
    """Poly-1 binary cross-entropy as it is usually written."""
    p = input.sigmoid()
    pt = p * target + (1 - p) * (1 - target)
    bce = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    return (bce + EPSILON * (1 - pt)).mean()


def usual_sigmoid_focal(input: Tensor, target: Tensor) -> Tensor:
    """Poly-1 sigmoid focal loss as it is usually written."""
    p = input.sigmoid()
    pt = p * target + (1 - p) * (1 - target)
    alpha = 0.25 * target + 0.75 * (1 - target)
    bce = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    return (alpha * ((1 - pt) ** 2 * bce + EPSILON * (1 - pt) ** 3)).mean()


class Operations(torch.autograd.Function):
    """The closed form of Poly-1 cross-entropy, and nothing else: no options, no checks, no rescue of small numbers.

    For small logits its time is that of starting some fifteen operations, which no loss written in Python can avoid.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor) -> Tensor:
        """Compute the mean loss and its gradient."""
        index = target.unsqueeze(1)
        gradient = input.softmax(1)
        p_t = gradient.gather(1, index)
        one_minus_p = gradient.scatter_(1, index, 0).sum(1, keepdim=True)
        nll = (one_minus_p / p_t).log1p_()
        slope = (1 + EPSILON * p_t).div_(len(input))
        ctx.save_for_backward(gradient.scatter_(1, index, one_minus_p.neg()).mul_(slope))
        return nll.add_(one_minus_p, alpha=EPSILON).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient, as for a ``grad`` of 1."""
        return ctx.saved_tensors[0], None


cross_entropy = functools.partial(poly.Poly1CrossEntropyLoss, EPSILON)
binary_cross_entropy = functools.partial(poly.Poly1BCEWithLogitsLoss, EPSILON)
KINDS = {
    "index": Kind(class_indices, cross_entropy, F.cross_entropy, usual_cross_entropy),
    "index, operations alone": Kind(class_indices, lambda: Operations.apply, F.cross_entropy, usual_cross_entropy),
    "smoothed": Kind(
        class_indices,
        functools.partial(cross_entropy, label_smoothing=SMOOTHING),
        functools.partial(F.cross_entropy, label_smoothing=SMOOTHING),
        functools.partial(usual_cross_entropy, smoothing=SMOOTHING),
    ),
    "probabilities": Kind(probabilities, cross_entropy, F.cross_entropy, usual_cross_entropy),
    "softmax focal": Kind(
        class_indices,
        functools.partial(poly.Poly1FocalLoss, EPSILON, gamma=2.0),
        F.cross_entropy,
        functools.partial(usual_cross_entropy, gamma=2.0),
    ),
    "BCE": Kind(zeros_and_ones, binary_cross_entropy, F.binary_cross_entropy_with_logits, usual_binary_cross_entropy),
    "sigmoid focal": Kind(
        zeros_and_ones,
        functools.partial(poly.Poly1SigmoidFocalLoss, EPSILON, alpha=0.25, gamma=2.0, reduction="mean"),
        functools.partial(sigmoid_focal_loss, alpha=0.25, gamma=2.0, reduction="mean"),
        usual_sigmoid_focal,
    ),
}

SMALL, MEDIUM, LARGE, ANCHORS = (256, 10), (1024, 1000), (1024, 21841), (49104, 80)
IMAGES, MANY_CLASSES = (4, 21, 256, 256), (2, 150, 256, 256)
BFLOAT16 = torch.bfloat16
CASES = (
    Case("index", SMALL, must=(1.8,), aim=(1.15,), usual=True),
    Case("index, operations alone", SMALL),
    Case("index", (32, 1000), must=(2.5,), aim=(1.5,)),
    Case("index", MEDIUM, must=(1.0,), aim=(0.8,), usual=True, observing=True),
    Case("index", LARGE, must=(0.55, 0.7), aim=(0.5, 0.62), usual=True, memory=True, observing=True),
    Case("index", IMAGES, must=(1.0,), aim=(0.75,), memory=True),
    Case("index", MANY_CLASSES, must=(0.65, 0.9), aim=(0.55,)),
    Case("index", MANY_CLASSES, "channels_last", must=(0.4,), aim=(0.24,), channels_last=True),
    Case("smoothed", MEDIUM, must=(1.0,), aim=(0.85,), usual=True, observing=True),
    Case("smoothed", LARGE, must=(0.55, 0.7), aim=(0.45,), memory=True),
    Case("probabilities", SMALL, must=(2.5,), aim=(1.5,)),
    Case("probabilities", MEDIUM, must=(2.1,), aim=(1.5,), usual=True, observing=True),
    Case("probabilities", LARGE, must=(1.4,), aim=(0.75,), memory=True),
    Case("BCE", ANCHORS, must=(1.4,), aim=(0.8,), usual=True, memory=True, observing=True),
    Case("sigmoid focal", ANCHORS, must=(0.45,), aim=(0.25,), usual=True, memory=True, observing=True),
    Case("index", LARGE, "bfloat16, autocast", (0.35, 0.55), aim=(0.27,), dtype=BFLOAT16, autocast=True, memory=True),
    Case("index", LARGE, "bfloat16", must=(0.95,), aim=(0.7,), dtype=BFLOAT16),
    Case("BCE", ANCHORS, "bfloat16", must=(0.95,), aim=(0.7,), dtype=BFLOAT16),
    Case("index", MEDIUM, "logits times 40", scale=40),
    Case("probabilities", MEDIUM, "logits times 40", scale=40),
    Case("BCE", ANCHORS, "logits times 40", scale=40),
    Case("softmax focal", MEDIUM, "over cross-entropy", usual=True),
)
COMPILED = Case("BCE", ANCHORS)


def prepare(case: Case, device: str) -> Prepared:
    """Make the tensors of a case, the same ones each time, and its losses."""
    torch.manual_seed(0)
    kind = KINDS[case.kind]
    target = kind.target(case.shape).to(device)
    target = target.to(case.dtype) if target.is_floating_point() else target
    input = torch.randn(case.shape).mul_(case.scale).to(device, case.dtype)
    if case.channels_last:
        input = input.contiguous(memory_format=torch.channels_last)

    def with_target(loss: LossWithTarget) -> Loss:
        def of_input(input: Tensor) -> Tensor:
            if not case.autocast:
                return loss(input, target)
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
                return loss(input, target)

        return of_input

    losses: dict[str, LossWithTarget] = {"ours": kind.ours(), "torch": kind.torch, "usual": kind.usual}
    if case.observing:
        losses["observed"] = observed = kind.ours()
        observed.register_observer(lambda observation: None)  # type: ignore[attr-defined]
    return Prepared(input.requires_grad_(), target, {name: with_target(loss) for name, loss in losses.items()})


def prepare_compiled(device: str) -> Prepared:
    """Prepare binary cross-entropy with three losses: "ours" compiled, "torch" eager, "torch compiled"."""
    input, target, _ = prepare(COMPILED, device)
    ours, theirs = torch.compile(binary_cross_entropy()), torch.compile(F.binary_cross_entropy_with_logits)
    return Prepared(
        input,
        target,
        {
            "ours": lambda input: ours(input, target),
            "torch": lambda input: F.binary_cross_entropy_with_logits(input, target),
            "torch compiled": lambda input: theirs(input, target),
        },
    )
