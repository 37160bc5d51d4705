"""Every loss trains under Lightning with the monitor watching and the scheduler moving its epsilon."""

import lightning.pytorch as lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import polyloss_lightning as poly
from polyloss_lightning.callbacks import EpsilonScheduler, PolynomialTermMonitor
from polyloss_lightning.schedules import LinearSchedule

CLASSES, SAMPLES = 3, 16
INDEX = torch.arange(SAMPLES) % CLASSES
ONE_HOT = torch.nn.functional.one_hot(INDEX, CLASSES).float()
WEIGHT = [0.5, 1.0, 2.0]
FAMILY = {
    "cross_entropy": (poly.Poly1CrossEntropyLoss, {"weight": WEIGHT}, INDEX),
    "focal": (poly.Poly1FocalLoss, {"gamma": 0.5, "weight": WEIGHT}, INDEX),
    "focal-soft": (poly.Poly1FocalLoss, {}, 0.9 * ONE_HOT + 0.1 / CLASSES),
    "binary": (poly.Poly1BCEWithLogitsLoss, {"pos_weight": WEIGHT}, ONE_HOT),
    "sigmoid_focal": (poly.Poly1SigmoidFocalLoss, {}, ONE_HOT),
    "sigmoid_focal-soft": (poly.Poly1SigmoidFocalLoss, {"gamma": 0.5}, 0.9 * ONE_HOT),
    "sigmoid_focal-index": (poly.Poly1SigmoidFocalLoss, {"target_format": "class_index", "num_terms": 2}, INDEX),
}


class Classifier(lightning.LightningModule):
    def __init__(self, loss_fn, target):
        super().__init__()
        self.net = torch.nn.Linear(4, CLASSES)
        self.num_classes = CLASSES
        self.loss_fn = loss_fn
        self.loader = DataLoader(TensorDataset(torch.randn(SAMPLES, 4), target), batch_size=4)
        self.seen = []

    def train_dataloader(self):
        return self.loader

    def training_step(self, batch, batch_idx):
        loss = self.loss_fn(self.net(batch[0]), batch[1])
        self.seen.append((self.trainer.current_epoch, self.loss_fn.epsilon, loss.item()))
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize(("module", "options", "target"), FAMILY.values(), ids=FAMILY)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_monitor_and_scheduler_work_with_every_loss(module, options, target, reduction, tmp_path):
    model = Classifier(module(**options, reduction=reduction), target)
    monitor = PolynomialTermMonitor(num_terms=2, per_class=True, figures=False)
    scheduler = EpsilonScheduler(LinearSchedule(-0.5, 2.0))
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[monitor, scheduler],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model)

    assert model.seen[0][1] == -0.5
    assert model.seen[-1][1] == 2.0
    logged = trainer.callback_metrics
    if "weight" not in options:  # where the classes of batches weigh differently, the batch means do not add up
        mean = torch.tensor([loss for epoch, _, loss in model.seen if epoch == 1]).mean()
        torch.testing.assert_close(logged["train/poly/loss"], mean, rtol=1e-5, atol=1e-6)
    parts = logged["train/poly/term_1"] + logged["train/poly/term_2"] + logged["train/poly/tail"]
    torch.testing.assert_close(parts, logged["train/poly/loss"], rtol=1e-5, atol=1e-6)
    assert 0 < logged["train/poly/pt"] < 1
    assert logged["train/poly/base_loss"].isfinite()
