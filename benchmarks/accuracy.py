"""Error of every loss against float64, beside the usual formulation: softmax, then 1 - pt, then pow.

Prints a Markdown table for each of float32, bfloat16 and float16. An error is the largest relative one over samples
whose target leads or trails by up to 20 (for gradients: largest error over largest entry, sample by sample); it is
relative to the smallest normal number of the dtype where the truth is below that, as it often is in float16 (6e-5).
"NaN" counts samples with a gradient that is not finite, for which logits up to 1e4 are tried too.

    python benchmarks/accuracy.py
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import polyloss_lightning as poly

Loss = Callable[[Tensor, Tensor], Tensor]
EPSILON = 1.0
ALPHA = 0.25
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GAMMAS = (0.1, 0.5, 1.0, 2.0, 5.0)
LEADS = torch.cat([torch.linspace(-20, 20, 801), torch.tensor([-1e4, -1e3, -100.0, 100.0, 1e3, 1e4])])
REACH = 20


def softmax_samples() -> tuple[Tensor, Tensor]:
    """Ten classes, the first of which is the target."""
    input = torch.randn(len(LEADS), 10, generator=torch.Generator().manual_seed(0))
    input[:, 0] = LEADS
    return input, torch.zeros(len(LEADS), dtype=torch.int64)


def sigmoid_samples() -> tuple[Tensor, Tensor]:
    """One positive and one negative element a sample, both of one lead."""
    return torch.stack([LEADS, -LEADS], 1), torch.tensor([1.0, 0.0]).expand(len(LEADS), 2)


def polynomial(odds: Tensor, gamma: float) -> Tensor:
    """The loss in terms of log(Pt / (1 - Pt)), which keeps every digit of both Pt and 1 - Pt."""
    log_miss = F.logsigmoid(-odds)
    return (gamma * log_miss).exp() * (F.softplus(-odds, threshold=1e6) + EPSILON * log_miss.exp())


def exact_softmax(gamma: float) -> Loss:
    """Reference for class indices, meant for float64."""

    def loss(input: Tensor, target: Tensor) -> Tensor:
        index = target.unsqueeze(1)
        gap = input - input.gather(1, index)
        return polynomial(-gap.scatter(1, index, -torch.inf).logsumexp(1), gamma)

    return loss


def usual_softmax(gamma: float) -> Loss:
    """What is usually written."""

    def loss(input: Tensor, target: Tensor) -> Tensor:
        miss = 1 - input.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
        return miss**gamma * (F.cross_entropy(input, target, reduction="none") + EPSILON * miss)

    return loss


def exact_sigmoid(gamma: float, alpha: float) -> Loss:
    """Reference for targets of 0 and 1, meant for float64."""

    def loss(input: Tensor, target: Tensor) -> Tensor:
        return alpha_t(target, alpha) * polynomial(input * (2 * target - 1), gamma)

    return loss


def usual_sigmoid(gamma: float, alpha: float) -> Loss:
    """What is usually written."""

    def loss(input: Tensor, target: Tensor) -> Tensor:
        p = input.sigmoid()
        miss = 1 - (p * target + (1 - p) * (1 - target))
        bce = F.binary_cross_entropy_with_logits(input, target, reduction="none")
        return alpha_t(target, alpha) * miss**gamma * (bce + EPSILON * miss)

    return loss


def alpha_t(target: Tensor, alpha: float) -> Tensor:
    """Weight of each element; 1 for alpha -1."""
    return torch.ones_like(target) if alpha < 0 else alpha * target + (1 - alpha) * (1 - target)


def evaluate(loss: Loss, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Value of each sample, and gradient in float64."""
    input = input.detach().requires_grad_()
    value = loss(input, target)
    (gradient,) = torch.autograd.grad(value.sum(), input)
    return value.detach().double(), gradient.double()


def cells(loss: Loss, exact: Loss, input: Tensor, target: Tensor) -> list[str]:
    """Error of the value, error of the gradient, number of gradients that are not finite."""
    moderate = LEADS.abs() <= REACH
    tiny = torch.finfo(input.dtype).tiny
    soft = target.is_floating_point()
    value, gradient = evaluate(loss, input, target.to(input.dtype) if soft else target)
    true_value, true_gradient = evaluate(exact, input.double(), target.double() if soft else target)
    value_error = (value - true_value).abs() / true_value.clamp_min(tiny)
    value_error = value_error[moderate].nan_to_num(torch.inf).max().item()
    gradient_error = (gradient - true_gradient).abs().amax(1) / true_gradient.abs().amax(1).clamp_min(tiny)
    gradient_error = gradient_error[moderate].nan_to_num(torch.inf).max().item()
    broken = int((~gradient.isfinite()).any(1).sum())
    return [f"{value_error:.0e}", f"{gradient_error:.0e}", str(broken)]


def rows() -> list[tuple[str, str, Loss, Loss, Loss, tuple[Tensor, Tensor]]]:
    """Name, gamma, our loss, the usual formulation, the exact loss, the samples."""
    softmax, sigmoid = softmax_samples(), sigmoid_samples()
    cross_entropy = poly.Poly1CrossEntropyLoss(EPSILON, reduction="none")
    binary = poly.Poly1BCEWithLogitsLoss(EPSILON, reduction="none")
    table: list[tuple[str, str, Loss, Loss, Loss, tuple[Tensor, Tensor]]] = [
        ("Poly1CrossEntropyLoss", "", cross_entropy, usual_softmax(0), exact_softmax(0), softmax),
        ("Poly1BCEWithLogitsLoss", "", binary, usual_sigmoid(0, -1), exact_sigmoid(0, -1), sigmoid),
    ]
    for gamma in GAMMAS:
        ours: Loss = poly.Poly1FocalLoss(EPSILON, gamma=gamma, reduction="none")
        table.append(("Poly1FocalLoss", f"{gamma:g}", ours, usual_softmax(gamma), exact_softmax(gamma), softmax))
    for gamma in GAMMAS:
        ours = poly.Poly1SigmoidFocalLoss(EPSILON, alpha=ALPHA, gamma=gamma, reduction="none")
        usual, exact = usual_sigmoid(gamma, ALPHA), exact_sigmoid(gamma, ALPHA)
        table.append(("Poly1SigmoidFocalLoss", f"{gamma:g}", ours, usual, exact, sigmoid))
    return table


def main() -> None:
    """Print the tables."""
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        print(f"\nLargest relative error for {name} logits, epsilon {EPSILON:g}\n")
        print("| loss | gamma | value | usual | gradient | usual | NaN | usual |")
        print("|---|---|---|---|---|---|---|---|")
        for label, gamma, ours, usual, exact, (input, target) in rows():
            pairs = zip(
                cells(ours, exact, input.to(dtype), target),
                cells(usual, exact, input.to(dtype), target),
                strict=True,
            )
            print(f"| {label} | {gamma} | " + " | ".join(cell for pair in pairs for cell in pair) + " |")


if __name__ == "__main__":
    main()
