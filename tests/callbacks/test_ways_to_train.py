"""Monitor and scheduler under what else a Trainer can do, beyond the cells that have tests of their own."""

import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, EMAWeightAveraging, LearningRateFinder, Timer
from torch.utils.data import DataLoader

from polyloss_lightning.callbacks import EpsilonScheduler, PolynomialTermMonitor
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.schedules import LinearSchedule


@pytest.fixture
def with_options(observed):
    class Module(observed):
        """Has what the finders change, and keeps the epsilon of each training step."""

        def __init__(self):
            super().__init__(loss_fn=Poly1CrossEntropyLoss(weight=[0.2, 1.0, 4.0]))
            self.lr, self.batch_size, self.seen = 0.1, 4, []

        def train_dataloader(self):
            return DataLoader(self.loader.dataset, batch_size=self.batch_size)

        def training_step(self, batch, batch_idx):
            self.seen.append(self.loss_fn.epsilon)
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    return Module


@pytest.mark.parametrize(
    ("callbacks", "options"),
    [
        (lambda: [EMAWeightAveraging(decay=0.5)], {}),
        (lambda: [Timer("00:01:00:00")], {}),
        (lambda: [LearningRateFinder(num_training_steps=3, early_stop_threshold=None)], {"enable_checkpointing": True}),
        (
            lambda: [BatchSizeFinder(mode="binsearch", init_val=2, max_trials=1, steps_per_trial=1)],
            {"enable_checkpointing": True},
        ),
        (list, {"precision": "bf16-mixed"}),
        (list, {"precision": "bf16-true"}),
        (list, {"precision": "64-true"}),
        (list, {"gradient_clip_val": 0.1}),
        (list, {"overfit_batches": 3}),
        (list, {"detect_anomaly": True}),
    ],
    ids=[
        "ema",
        "timer",
        "lr finder",
        "batch size finder",
        "bf16",
        "bf16-true",
        "float64",
        "clip",
        "overfit",
        "anomaly",
    ],
)
@pytest.mark.filterwarnings("ignore:.*overfit|.*checkpoint", "ignore:.*batch size", "ignore:Anomaly Detection")
def test_epsilon_ends_with_the_run_and_the_sums_are_those_of_the_epoch(
    with_options, make_trainer, loss_of, callbacks, options
):
    module = with_options()
    ours = [EpsilonScheduler(LinearSchedule(-1.0, 2.0)), PolynomialTermMonitor()]
    trainer = make_trainer(callbacks=[*ours, *callbacks()], **{"max_epochs": 2, "limit_val_batches": 0, **options})
    trainer.fit(module)
    steps = trainer.num_training_batches
    seen, calls = module.seen[-2 * steps :], module.calls["train"][-steps:]
    assert seen == pytest.approx([-1 + 3 * step / (2 * steps - 1) for step in range(2 * steps)])
    value = float(trainer.callback_metrics["train/poly/base_loss"])
    assert value == pytest.approx(loss_of(calls, epsilon=0.0), rel=2e-2 if "bf16" in str(options) else 1e-5)
