import lightning.pytorch as pl
import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from polyloss_lightning.search.learning_rate import ScaleLearningRate


class Module(pl.LightningModule):
    def __init__(self, make_scheduler, interval="step"):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.make_scheduler = make_scheduler
        self.rates = []

    def training_step(self, batch, batch_idx):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.layer(batch).mean()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(12, 2), batch_size=1)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = self.make_scheduler(optimizer)
        return optimizer if scheduler is None else ([optimizer], [{"scheduler": scheduler, "interval": "step"}])


def rates(make_scheduler, *callbacks):
    module = Module(make_scheduler)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module)
    return module.rates


def sequential(optimizer):
    parts = [schedulers.LinearLR(optimizer, total_iters=4), schedulers.CosineAnnealingLR(optimizer, 8, eta_min=0.01)]
    return schedulers.SequentialLR(optimizer, parts, milestones=[4])


SCHEDULERS = {
    "none": lambda optimizer: None,
    "LambdaLR": lambda optimizer: schedulers.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "StepLR": lambda optimizer: schedulers.StepLR(optimizer, 3),
    "ExponentialLR": lambda optimizer: schedulers.ExponentialLR(optimizer, 0.9),
    "OneCycleLR": lambda optimizer: schedulers.OneCycleLR(optimizer, max_lr=0.5, total_steps=13),
    "CosineAnnealingLR": lambda optimizer: schedulers.CosineAnnealingLR(optimizer, 6, eta_min=0.02),
    "CosineAnnealingWarmRestarts": lambda optimizer: schedulers.CosineAnnealingWarmRestarts(optimizer, 4, eta_min=0.02),
    "CyclicLR": lambda optimizer: schedulers.CyclicLR(optimizer, 0.01, 0.2, step_size_up=3, cycle_momentum=False),
    "PolynomialLR": lambda optimizer: schedulers.PolynomialLR(optimizer, 8),
    "SequentialLR": sequential,
    "ChainedScheduler": lambda optimizer: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(optimizer, total_iters=3), schedulers.ExponentialLR(optimizer, 0.9)], optimizer=optimizer
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")  # SequentialLR of torch 2.6
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_learning_rate_of_a_run_is_multiplied(name):
    plain, scaled = rates(SCHEDULERS[name]), rates(SCHEDULERS[name], ScaleLearningRate(3.0))
    assert len(plain) == 12
    assert scaled == pytest.approx([3 * rate for rate in plain])


def test_a_scheduler_of_unknown_kind_is_refused_by_name():
    class Warmup(schedulers.LRScheduler):
        def get_lr(self):
            return [0.1 for _ in self.base_lrs]

    with pytest.raises(ValueError, match="learning rates of Warmup cannot be scaled"):
        rates(Warmup, ScaleLearningRate(2.0))


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_factors(factor):
    with pytest.raises(ValueError, match="`factor` must be a finite number above 0"):
        ScaleLearningRate(factor)
