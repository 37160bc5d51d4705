"""A run in which every part of the package takes part, and what each did in it, checked against formulas.

As a script, ``python all_parts.py FOLDER STRATEGY`` trains in two processes and saves what each of them saw.
"""

import sys
import warnings
from typing import NamedTuple

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from polyloss_lightning import EpsilonScheduler, LossProvider, PolyLossOverride, PolynomialTermMonitor
from polyloss_lightning.schedules import LinearSchedule

TOTAL = "train/poly/cross_entropy/base_loss", "train/poly/loss_fn/base_loss"


class Call(NamedTuple):
    """What both losses of a step got and returned."""

    stage: str
    epoch: int
    step: int
    epsilon: float
    logits: torch.Tensor
    target: torch.Tensor
    ours: float
    replaced: float


class EveryPart:
    """Trains with the sum of its own loss and one of torch's; a mixin, for both names of Lightning."""

    def __init__(self, loss_fn=None, batches=4):
        super().__init__(loss_fn=loss_fn)
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)
        self.data = TensorDataset(torch.randn(4 * batches, 4), torch.randint(3, (4 * batches,)))
        self.calls = []
        self.lr, self.batch_size = 0.1, 4

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=self.batch_size)

    def position(self):
        return self.trainer.global_step

    def both_losses(self, batch, stage):
        logits, target = self.net(batch[0].to(self.net.weight.dtype)), batch[1]
        ours, replaced = self.loss_fn(logits, target), F.cross_entropy(logits, target)
        place = self.trainer.current_epoch, self.position()
        values = logits.detach().clone(), target, float(ours.detach()), float(replaced.detach())
        self.calls.append(Call(stage, *place, self.loss_fn.epsilon, *values))
        return ours + replaced

    def training_step(self, batch, batch_idx):
        return self.both_losses(batch, "train")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Everything(EveryPart, LossProvider, pl.LightningModule):
    """Trains with every part."""


class Validated(Everything):
    """One with validation and test."""

    def val_dataloader(self):
        return self.train_dataloader()

    test_dataloader = val_dataloader

    def validation_step(self, batch, batch_idx):
        self.both_losses(batch, "sanity" if self.trainer.sanity_checking else "val")

    def test_step(self, batch, batch_idx):
        self.both_losses(batch, "test")


def parts():
    """The three callbacks."""
    return [EpsilonScheduler(LinearSchedule(-1.0, 2.0)), PolyLossOverride(), PolynomialTermMonitor(figures=False)]


def by_hand(logits, target, epsilon):
    """Poly-1 cross-entropy in float64."""
    log_p = logits.double().log_softmax(1)[range(len(target)), target]
    return float((-log_p + epsilon * (1 - log_p.exp())).mean())


def check_calls(calls, total, rel=1e-5):
    """Compare both losses of every call with the formula at the epsilon that its step must have."""
    assert total > 1
    for call in calls:
        if call.stage == "train":
            assert call.epsilon == pytest.approx(-1 + 3 * min(call.step / (total - 1), 1))
        ours = by_hand(call.logits, call.target, call.epsilon)
        replaced = by_hand(call.logits, call.target, call.epsilon if call.stage == "train" else 0.0)
        assert (call.ours, call.replaced) == pytest.approx((ours, replaced), rel=rel)


def check_sums(calls, metrics, stage="train", rel=1e-5):
    """Compare what the monitor logged at the end of a pass with the formula over all of its samples."""
    logits, target = (torch.cat([getattr(call, name) for call in calls]) for name in ("logits", "target"))
    expected = by_hand(logits, target, 0.0)
    for loss in ("loss_fn", "cross_entropy"):
        assert float(metrics[f"{stage}/poly/{loss}/base_loss"]) == pytest.approx(expected, rel=rel)


def trainer_in_two_processes(strategy, folder, **options):
    """A silent Trainer of two epochs."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 2}
    return pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        **quiet,
        **options,
    )


class OfRank(Everything):
    """Every process trains on its own part of the data."""

    folder = None

    def train_dataloader(self):
        return DataLoader(Subset(self.data, range(self.global_rank, len(self.data), 2)), batch_size=4)

    def on_train_end(self):
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        calls = [tuple(call) for call in self.calls]
        weight = self.net.weight.full_tensor() if hasattr(self.net.weight, "full_tensor") else self.net.weight
        torch.save((calls, metrics, self.trainer.global_step, weight.detach()), f"{self.folder}/{self.global_rank}.pt")


class Sharded(OfRank):
    """Its layer is sharded by FSDP2."""

    def configure_model(self):
        from torch.distributed.fsdp import fully_shard

        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


class TensorParallel(OfRank):
    """Its layer is sharded over the classes; both processes have the same data and logits that are a DTensor."""

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=4)

    def configure_model(self):
        from torch.distributed.tensor import Shard
        from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

        style = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
        parallelize_module(self.net, self.device_mesh["tensor_parallel"], style)

    def both_losses(self, batch, stage):
        from torch.distributed.tensor import Replicate, distribute_tensor

        mesh = self.device_mesh["tensor_parallel"]
        logits = self.net(batch[0])
        target = distribute_tensor(batch[1], mesh, [Replicate()])
        ours, replaced = self.loss_fn(logits, target), F.cross_entropy(logits, target)
        place = self.trainer.current_epoch, self.position()
        values = [one.detach().full_tensor().clone() for one in (logits, target, ours, replaced)]
        self.calls.append(Call(stage, *place, self.loss_fn.epsilon, *values[:2], float(values[2]), float(values[3])))
        return (ours + replaced).full_tensor()


def main(folder, strategy):
    """Train."""
    warnings.simplefilter("ignore")
    kind = {"fsdp2": Sharded, "tensor_parallel": TensorParallel}.get(strategy, OfRank)
    if strategy in ("fsdp2", "tensor_parallel"):
        from lightning.pytorch.strategies import ModelParallelStrategy

        sizes = (2, 1) if strategy == "fsdp2" else (1, 2)
        strategy = ModelParallelStrategy(*sizes, save_distributed_checkpoint=False)
    kind.folder = folder
    module = kind(batches=6)
    module.folder = folder
    trainer_in_two_processes(strategy, folder, callbacks=parts()).fit(module)


if __name__ == "__main__":
    main(*sys.argv[1:])
