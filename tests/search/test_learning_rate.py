from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.optim import lr_scheduler as schedulers

from polyloss_lightning.search.learning_rate import ScaleLearningRate


class Warmup(schedulers.LRScheduler):
    def get_lr(self):
        return [0.1 for _ in self.base_lrs]


def rates(make_scheduler, factor=None, steps=12):
    """Learning rates of both groups of an optimizer in each step."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.3}], lr=0.1)
    scheduler = make_scheduler(optimizer)
    if factor is not None:
        configs = [] if scheduler is None else [SimpleNamespace(scheduler=scheduler)]
        trainer = SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=configs)
        ScaleLearningRate(factor).on_fit_start(trainer, None)
    seen = []
    for _ in range(steps):
        seen += [group["lr"] for group in optimizer.param_groups]
        optimizer.step()
        if isinstance(scheduler, schedulers.ReduceLROnPlateau):
            scheduler.step(1.0)  # never improves
        elif scheduler is not None:
            scheduler.step()
    return seen


def sequential(optimizer):
    parts = [schedulers.LinearLR(optimizer, total_iters=4), schedulers.CosineAnnealingLR(optimizer, 8, eta_min=0.01)]
    return schedulers.SequentialLR(optimizer, parts, milestones=[4])


SCHEDULERS = {
    "none": lambda optimizer: None,
    "LambdaLR": lambda optimizer: schedulers.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda optimizer: schedulers.MultiplicativeLR(optimizer, lambda step: 0.9),
    "StepLR": lambda optimizer: schedulers.StepLR(optimizer, 3),
    "MultiStepLR": lambda optimizer: schedulers.MultiStepLR(optimizer, [2, 5]),
    "ConstantLR": lambda optimizer: schedulers.ConstantLR(optimizer, total_iters=3),
    "LinearLR": lambda optimizer: schedulers.LinearLR(optimizer, total_iters=4),
    "ExponentialLR": lambda optimizer: schedulers.ExponentialLR(optimizer, 0.9),
    "OneCycleLR": lambda optimizer: schedulers.OneCycleLR(optimizer, max_lr=0.5, total_steps=13),
    "CosineAnnealingLR": lambda optimizer: schedulers.CosineAnnealingLR(optimizer, 6, eta_min=0.02),
    "CosineAnnealingWarmRestarts": lambda optimizer: schedulers.CosineAnnealingWarmRestarts(optimizer, 4, eta_min=0.02),
    "CyclicLR": lambda optimizer: schedulers.CyclicLR(optimizer, 0.01, 0.2, step_size_up=3, cycle_momentum=False),
    "PolynomialLR": lambda optimizer: schedulers.PolynomialLR(optimizer, 8),
    "ReduceLROnPlateau": lambda optimizer: schedulers.ReduceLROnPlateau(optimizer, patience=1, min_lr=0.004),
    "SequentialLR": sequential,
    "ChainedScheduler": lambda optimizer: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(optimizer, total_iters=3), schedulers.ExponentialLR(optimizer, 0.9)], optimizer=optimizer
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")  # SequentialLR of torch 2.6
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_learning_rate_of_a_run_is_multiplied(name):
    plain, scaled = rates(SCHEDULERS[name]), rates(SCHEDULERS[name], factor=3.0)
    assert scaled == pytest.approx([3 * rate for rate in plain])


def test_it_acts_before_the_first_step_of_a_trainer():
    class Module(BoringModel):
        def on_train_batch_start(self, batch, batch_idx):
            seen.append(self.optimizers().param_groups[0]["lr"])

    seen = []
    trainer = pl.Trainer(
        max_epochs=2,
        limit_train_batches=1,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ScaleLearningRate(3.0)],
    )
    trainer.fit(Module())
    assert seen == pytest.approx([0.3, 0.03])  # BoringModel divides by 10 after each epoch


def test_a_scheduler_of_unknown_kind_is_refused_by_name():
    with pytest.raises(ValueError, match="learning rates of Warmup cannot be scaled"):
        rates(Warmup, factor=2.0)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_factors(factor):
    with pytest.raises(ValueError, match="`factor` must be a finite number above 0"):
        ScaleLearningRate(factor)
