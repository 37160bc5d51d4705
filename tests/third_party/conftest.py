"""Fit steps of other people's modules, and their losses by hand.

Not collected by a plain ``pytest``: these packages are no dependencies of the other tests (``nox -s third_party``).
"""

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias
from unittest import mock

import lightning.pytorch as lightning
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from polyloss_lightning import PolyLossOverride

EPSILON = 2.0
DEVIATIONS: list[str] = []  # rows of the table that is printed at the end
Patch: TypeAlias = tuple[Any, str, Callable[..., Tensor]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore")  # other people's


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if DEVIATIONS:
        terminalreporter.section("relative deviation from the losses by hand")
        terminalreporter.write_line("| package | module | parameters | loss | gradients |\n|---|---|---|---|---|")
        terminalreporter.write_line("\n".join(DEVIATIONS))


def deviations(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """The number of gradients, the deviation of the loss, and that of all gradients as one vector."""
    difference, norm = {}, {}
    for name, value in expected.items():
        difference[name], norm[name] = (actual[name] - value).norm().item(), value.norm().item()
    loss = difference.pop("loss") / norm.pop("loss")
    gradients = math.hypot(*difference.values()) / math.hypot(*norm.values())
    return [str(len(norm)), f"{loss:.1e}", f"{gradients:.1e}"]


def reduced(loss: Tensor, norm: Tensor | float, reduction: str, dtype: torch.dtype) -> Tensor:
    return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / norm}[reduction].to(dtype)


def cross_entropy_by_hand(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Poly-1 cross-entropy by its definition in float64, with torch's arguments."""
    x = input.double().movedim(1, -1)
    nll, p = x.logsumexp(-1, keepdim=True) - x, x.softmax(-1)
    classes = p.shape[-1]
    weights = p.new_ones(classes) if weight is None else weight.double()
    value = weights * (nll + EPSILON * (1 - p))
    if target.is_floating_point():
        q, norm = target.double().movedim(1, -1), target.numel() / classes
    else:
        counts = target != ignore_index
        index = torch.where(counts, target, 0)
        q, norm = torch.eye(classes, dtype=p.dtype)[index] * counts[..., None], (weights[index] * counts).sum()
        q = q * (1 - label_smoothing) + counts[..., None] * label_smoothing / classes
    return reduced((q * value).sum(-1), norm, reduction, input.dtype)


def binary_by_hand(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Tensor:
    """Poly-1 binary cross-entropy by its definition in float64, with torch's arguments."""
    x, q, zero = input.double(), target.double(), torch.zeros((), dtype=torch.float64)
    # log(1 + exp(x)): log(1 - sigmoid(x)) is -inf from x = 37 on, and untrained detectors have such logits.
    positive = (1 if pos_weight is None else pos_weight) * q * (zero.logaddexp(-x) + EPSILON * (-x).sigmoid())
    loss = (1 if weight is None else weight) * (positive + (1 - q) * (zero.logaddexp(x) + EPSILON * x.sigmoid()))
    return reduced(loss, loss.numel(), reduction, input.dtype)


def focal_by_hand(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """Poly-1 focal loss by its definition in float64, with torchvision's arguments."""
    x = inputs.double()
    odds, alpha_t = (torch.where(targets == 1, yes, no) for yes, no in ((x, -x), (alpha, 1 - alpha)))
    miss = (-odds).sigmoid()
    loss = alpha_t * miss**gamma * (torch.zeros_like(odds).logaddexp(-odds) + EPSILON * miss)
    return reduced(loss, loss.numel(), reduction, inputs.dtype)


class Wrapped(lightning.LightningModule):
    """Makes a plain module a LightningModule; ``loss`` says how to get the loss of a batch from it."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self.model, batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit_step(module: Any, batch: Any, *callbacks: Any) -> dict[str, Tensor]:
    """The loss and every gradient of the first step of a real fit; ``module`` stays as it is."""
    seen: dict[str, Tensor] = {}
    pl = lightning if isinstance(module, lightning.LightningModule) else pytorch_lightning

    class Record(pl.Callback):  # type: ignore[name-defined,misc]
        def on_before_backward(self, trainer: Any, module: Any, loss: Tensor) -> None:
            seen["loss"] = loss.detach()

        def on_after_backward(self, trainer: Any, module: Any) -> None:
            gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
            seen.update(gradients)

    pl.seed_everything(0)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, Record()],
    )
    loader = DataLoader([batch], batch_size=None, collate_fn=lambda one: one)
    trainer.fit(copy.deepcopy(module), loader, loader if hasattr(module, "val_metrics") else None)
    return seen


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 1e-4) -> None:
    """The same names, and each tensor the same up to a share of the largest gradient that a parameter has."""
    assert actual.keys() == expected.keys()
    assert len(actual) > 2
    scale = max(value.norm().item() for name, value in expected.items() if name != "loss")
    for name, value in expected.items():
        difference = (actual[name] - value).norm().item()
        assert difference <= tolerance * value.norm().item() + 1e-6 * scale, (name, difference, value.norm().item())


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``check(module, batch, *patches, **override)``: the step with an override is the one with losses by hand.

    Returns the override, with the call sites it found.
    """

    def compare(module: Any, batch: Any, *patches: Any, **options: Any) -> PolyLossOverride:
        override = PolyLossOverride(EPSILON, **options)
        actual = fit_step(module, batch, override)
        plain = fit_step(module, batch)
        with ExitStack() as stack:
            for owner, name, by_hand in patches:
                stack.enter_context(mock.patch.object(owner, name, by_hand))
            expected = fit_step(module, batch)
        assert_same(actual, expected)
        names = [name.removeprefix("test_").replace("_", " ") for name in (request.path.stem, request.node.name)]
        DEVIATIONS.append(f"| {' | '.join([*names, *deviations(actual, expected)])} |")
        assert not torch.isclose(actual["loss"], plain["loss"], rtol=1e-3)
        return override

    return compare


@pytest.fixture
def cross_entropy() -> Patch:
    return F, "cross_entropy", cross_entropy_by_hand


@pytest.fixture
def binary() -> Patch:
    return F, "binary_cross_entropy_with_logits", binary_by_hand


@pytest.fixture
def focal() -> Callable[..., Tensor]:
    return focal_by_hand


@pytest.fixture
def wrapped() -> type[Wrapped]:
    return Wrapped


@pytest.fixture
def first_step() -> Callable[..., Any]:
    return fit_step
