from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning.callbacks import PolynomialTermMonitor
from polyloss_lightning.losses import Poly1CrossEntropyLoss


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Monitors draw figures only if a test asks for them, because that takes longer than most runs."""
    monkeypatch.setitem(PolynomialTermMonitor.__init__.__kwdefaults__, "figures", False)


class SeenEpsilon(pl.LightningModule):
    """A linear classifier of fixed data, which writes down the epsilon of every training batch."""

    def __init__(self, batches: int = 4, loader: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)
        self.loss_fn = Poly1CrossEntropyLoss()
        self.loss_fn.epsilon = 0.25
        self.seen: list[float | tuple[float, ...]] = []
        data = TensorDataset(torch.randn(2 * batches, 4), torch.randint(3, (2 * batches,)))
        self.loader = DataLoader(data, batch_size=2, shuffle=False) if loader is None else loader

    def train_dataloader(self) -> Any:
        return self.loader

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.seen.append(self.loss_fn.epsilon)
        loss: Tensor = self.loss_fn(self.net(batch[0]), batch[1])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


@pytest.fixture
def seen_epsilon() -> type[SeenEpsilon]:
    """A module class: ``seen_epsilon(batches=4)`` builds one, whose ``seen`` is the epsilon of every batch."""
    return SeenEpsilon


@pytest.fixture
def make_trainer(tmp_path: Any) -> Callable[..., pl.Trainer]:
    """Builds a silent CPU trainer without logger and checkpoints; options override that."""

    def make(**options: Any) -> pl.Trainer:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        defaults = {"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, "enable_model_summary": False}
        return pl.Trainer(**{**quiet, **defaults, **options})

    return make


class Observed(pl.LightningModule):
    """A classifier with class weights and ignored targets, which keeps what its loss was given in ``calls``."""

    def __init__(self, batches: int = 5, loss_fn: nn.Module | None = None, data: TensorDataset | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)
        self.num_classes = 3
        self.loss_fn = loss_fn or Poly1CrossEntropyLoss(epsilon=1.0, weight=[0.2, 1.0, 4.0])
        if data is None:
            target = torch.randint(3, (4 * batches,))
            target[::5] = -100
            data = TensorDataset(torch.randn(4 * batches, 4), target)
        self.loader = DataLoader(data, batch_size=4, shuffle=False)
        self.calls: dict[str, list[tuple[Tensor, Tensor]]] = {"train": [], "val": [], "test": [], "sanity": []}

    def train_dataloader(self) -> Any:
        return self.loader

    val_dataloader = test_dataloader = train_dataloader

    def step(self, batch: list[Tensor], stage: str) -> Tensor:
        logits = self.net(batch[0])
        self.calls["sanity" if self.trainer.sanity_checking else stage].append((logits.detach().clone(), batch[1]))
        loss: Tensor = self.loss_fn(logits, batch[1])
        return loss

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.step(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.step(batch, "val")

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.step(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


@pytest.fixture
def observed() -> type[Observed]:
    """A module class: ``observed(batches=5)`` builds one, whose ``calls`` are logits and targets by stage."""
    return Observed


@pytest.fixture
def loss_of() -> Callable[..., float]:
    """The loss over calls with class-index targets, by float64 formulas: ``loss_of(calls, epsilon, weight)``."""

    def loss(calls: Any, epsilon: float = 1.0, weight: Any = (0.2, 1.0, 4.0)) -> float:
        total = norm = 0.0
        for logits, target in calls:
            for row, index in zip(logits.double(), target.tolist(), strict=True):
                if index != -100:
                    pt = row.softmax(0)[index]
                    total += weight[index] * float(epsilon * (1 - pt) - pt.log())
                    norm += weight[index]
        return total / norm

    return loss
