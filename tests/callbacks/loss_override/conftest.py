"""Somebody's module, and the same module with the loss written by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def by_hand_(logits: Tensor, target: Tensor, epsilon: float = 2.0) -> Tensor:
    """Poly-1 cross-entropy without any of torch's loss functions, nor ours."""
    log_p = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), 1)[
        range(len(target)), target
    ]
    return (-log_p + epsilon * (1 - log_p.exp())).mean()


class Foreign(pl.LightningModule):
    """Somebody's module. Given another criterion it is the reference that it is compared with."""

    def __init__(self, criterion: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)
        self.criterion = criterion or nn.CrossEntropyLoss()
        self.losses: dict[str, list[float]] = {"train": [], "val": []}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.criterion(self.net(batch[0]), batch[1])
        self.losses["train"].append(loss.item())
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


class Evaluated(Foreign):
    """One with validation and test."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.losses["val"].append(self.criterion(self.net(batch[0]), batch[1]).item())
        self.log("val_loss", self.losses["val"][-1])

    test_step = validation_step


@pytest.fixture
def by_hand() -> Callable[..., Tensor]:
    return by_hand_


@pytest.fixture
def foreign() -> type[Foreign]:
    return Foreign


@pytest.fixture
def evaluated() -> type[Evaluated]:
    return Evaluated


@pytest.fixture
def data() -> DataLoader[Any]:
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(8, 4), torch.arange(8) % 3), batch_size=2)


@pytest.fixture
def trainer(make_trainer: Callable[..., pl.Trainer]) -> Callable[..., pl.Trainer]:
    """Builds a silent trainer of two epochs."""
    return partial(make_trainer, max_epochs=2, num_sanity_val_steps=0)


@pytest.fixture
def trained(trainer: Callable[..., pl.Trainer], data: DataLoader[Any]) -> Callable[..., Foreign]:
    """Fits a module: ``trained(module, callbacks=...)``; gives it back."""

    def fit(module: Foreign, **options: Any) -> Foreign:
        trainer(**options).fit(module, data)
        return module

    return fit


@pytest.fixture
def assert_same_weights() -> Callable[[Foreign, Foreign], None]:
    def check(module: Foreign, expected: Foreign) -> None:
        torch.testing.assert_close(module.net.state_dict(), expected.net.state_dict())

    return check
