"""What a Poly-1 loss costs over torch's own: time of forward and backward, and memory that waits for backward.

Times are ratios to torch's loss of the same target (torchvision's for the focal losses), each the median over rounds in
which all are taken in turns, on one thread. "Kept" counts what autograd keeps for backward in units of the logits,
leaving out the logits and targets themselves. "usual" is what is usually written: softmax, a one-hot target, 1 - pt.

    python benchmarks/losses.py [cpu|cuda]
"""

import statistics
import sys
import time
import weakref
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

import polyloss_lightning as poly

EPSILON = 1.0
SMOOTHING = 0.1
SHAPES = ((256, 10), (1024, 100), (1024, 1000), (1024, 21841), (4, 21, 256, 256))
ELEMENTWISE = ((256, 80), (49104, 80))
Case = tuple[str, dict[str, Callable[[Tensor], Tensor]]]


def usual(smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Poly-1 cross-entropy as it is usually written."""

    def loss(input: Tensor, target: Tensor) -> Tensor:
        q = target
        if not target.is_floating_point():
            q = F.one_hot(target, input.shape[1]).movedim(-1, 1).to(input.dtype)
            q = (1 - smoothing) * q + smoothing / input.shape[1]
        pt = (q * input.softmax(1)).sum(1)
        ce = F.cross_entropy(input, target, reduction="none", label_smoothing=smoothing)
        return (ce + EPSILON * (1 - pt)).mean()

    return loss


def usual_focal(input: Tensor, target: Tensor) -> Tensor:
    """Poly-1 focal loss as it is usually written."""
    p = input.sigmoid()
    pt = p * target + (1 - p) * (1 - target)
    alpha = 0.25 * target + 0.75 * (1 - target)
    bce = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    return (alpha * ((1 - pt) ** 2 * bce + EPSILON * (1 - pt) ** 3)).mean()


def softmax_cases(shape: tuple[int, ...], device: str) -> list[Case]:
    """Class indices, probabilities, and smoothed class indices."""
    index = torch.randint(shape[1], (shape[0], *shape[2:]), device=device)
    soft = torch.randn(shape, device=device).softmax(1)
    plain, smoothed = (
        poly.Poly1CrossEntropyLoss(EPSILON),
        poly.Poly1CrossEntropyLoss(EPSILON, label_smoothing=SMOOTHING),
    )
    focal = poly.Poly1FocalLoss(EPSILON)
    return [
        (
            "class indices",
            {
                "torch": lambda x: F.cross_entropy(x, index),
                "Poly-1": lambda x: plain(x, index),
                "focal": lambda x: focal(x, index),
                "usual": lambda x: usual(0.0)(x, index),
            },
        ),
        (
            "probabilities",
            {
                "torch": lambda x: F.cross_entropy(x, soft),
                "Poly-1": lambda x: plain(x, soft),
                "focal": lambda x: focal(x, soft),
                "usual": lambda x: usual(0.0)(x, soft),
            },
        ),
        (
            "smoothed class indices",
            {
                "torch": lambda x: F.cross_entropy(x, index, label_smoothing=SMOOTHING),
                "Poly-1": lambda x: smoothed(x, index),
                "usual": lambda x: usual(SMOOTHING)(x, index),
            },
        ),
    ]


def sigmoid_cases(shape: tuple[int, ...], device: str) -> list[Case]:
    """Multi-hot targets."""
    target = (torch.rand(shape, device=device) < 0.05).float()
    binary, focal = poly.Poly1BCEWithLogitsLoss(EPSILON), poly.Poly1SigmoidFocalLoss(EPSILON, reduction="mean")
    return [
        (
            "binary cross-entropy",
            {
                "torch": lambda x: F.binary_cross_entropy_with_logits(x, target),
                "Poly-1": lambda x: binary(x, target),
            },
        ),
        (
            "sigmoid focal",
            {
                "torch": lambda x: sigmoid_focal_loss(x, target, reduction="mean"),
                "Poly-1": lambda x: focal(x, target),
                "usual": lambda x: usual_focal(x, target),
            },
        ),
    ]


def seconds(losses: dict[str, Callable[[Tensor], Tensor]], input: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of forward and backward, by loss and round."""
    calls = max(1, 200_000 // input.numel())

    def run(loss: Callable[[Tensor], Tensor]) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            input.grad = None
            loss(input).backward()
        if input.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    for loss in losses.values():
        run(loss)
    taken: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds):
        for name, loss in losses.items():
            taken[name].append(run(loss))
    return taken


class Waiting:
    """A tensor that waits for backward."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept(loss: Callable[[Tensor], Tensor], input: Tensor) -> float:
    """What waits for backward beside the logits, in units of them; each storage counts once."""
    waiting: weakref.WeakSet[Waiting] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Waiting:
        waiting.add(kept := Waiting(tensor))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        value = loss(input)
    storages = {kept.tensor.untyped_storage() for kept in waiting}
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    sizes.pop(input.untyped_storage().data_ptr(), None)
    del value
    return sum(sizes.values()) / (input.numel() * input.element_size())


def main() -> None:
    """Print the table."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    torch.set_num_threads(1)
    names = ("Poly-1", "focal", "usual")
    print(f"torch {torch.__version__}, {device}, one thread\n")
    print("| target | logits | torch | " + " | ".join(names) + " | kept: torch | " + " | ".join(names) + " |")
    print("|---" * (4 + 2 * len(names)) + "|")
    for shapes, cases in ((SHAPES, softmax_cases), (ELEMENTWISE, sigmoid_cases)):
        for shape in shapes:
            input = torch.randn(shape, device=device, requires_grad=True)
            for title, losses in cases(shape, device):
                taken = seconds(losses, input, rounds=5 if input.numel() > 4_000_000 else 25)
                ratios = {
                    name: statistics.median(a / b for a, b in zip(taken[name], taken["torch"], strict=True))
                    for name in losses
                }
                memory = {name: kept(loss, input) for name, loss in losses.items()}
                cells = [title, str(list(shape)), f"{1e3 * statistics.median(taken['torch']):.2f} ms"]
                cells += [f"{ratios[name]:.2f}" if name in losses else "" for name in names]
                cells += [f"{memory[name]:.1f}" if name in losses else "" for name in ("torch", *names)]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
