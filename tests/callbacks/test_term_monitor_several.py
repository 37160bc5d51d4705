"""Two monitors in one Trainer, each with losses of its own."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from polyloss_lightning.callbacks import EpsilonScheduler, PolynomialTermMonitor
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.record import read_record
from polyloss_lightning.schedules import LinearSchedule


@pytest.fixture
def two(observed):
    class Two(observed):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([Poly1CrossEntropyLoss(0.0)])

        def step(self, batch, stage):
            return super().step(batch, stage) + self.heads[0](self.net(batch[0]), batch[1])

    return Two()


@pytest.fixture
def pair():
    return [
        PolynomialTermMonitor(losses=["loss_fn"], per_class=True, figures=True),
        PolynomialTermMonitor(1, losses=["heads.0"], stages=["val"]),
    ]


@pytest.mark.condition("PolynomialTermMonitor", "several of a kind")
def test_each_logs_its_losses_by_path(two, pair, make_trainer):
    trainer = make_trainer(callbacks=pair, max_epochs=1)
    trainer.fit(two)
    names = {name.rsplit("/", 1)[0] for name in trainer.callback_metrics if "_class/" not in name}
    assert names == {"train/poly/loss_fn", "val/poly/loss_fn", "poly/loss_fn", "val/poly/heads.0"}
    assert trainer.callback_metrics["val/poly/heads.0/correction"] == 0
    assert trainer.callback_metrics["val/poly/loss_fn/correction"] > 0


@pytest.mark.parametrize("order", [1, -1])
def test_they_write_one_record_and_one_set_of_figures(two, pair, make_trainer, tmp_path, order):
    seen = []

    class Pictures(CSVLogger):
        def log_image(self, key, images):
            seen.append(key)

    trainer = make_trainer(callbacks=pair[::order], max_epochs=2, logger=Pictures(tmp_path))
    trainer.fit(two)
    record = read_record(trainer.log_dir)
    passes = sorted((e.stage, e.loss, e.epoch) for e in record.epochs)
    assert passes == [
        *(("train", "loss_fn", epoch) for epoch in (0, 1)),
        *(("val", loss, epoch) for loss in ("heads.0", "loss_fn") for epoch in (0, 1)),
    ]
    assert sum(record.class_counts) == 16
    assert len(seen) == len(set(seen))
    assert {key.split("/")[1] for key in seen} == {"loss_fn", "heads.0"}


def test_each_finds_its_own_sums_in_a_checkpoint(two, pair, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=pair, max_epochs=1)
    trainer.fit(two)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    states = torch.load(tmp_path / "end.ckpt", weights_only=True)["callbacks"]
    assert set(states) == {f"PolynomialTermMonitor{{'losses': ('{path}',)}}" for path in ("loss_fn", "heads.0")}
    assert list(states["PolynomialTermMonitor{'losses': ('loss_fn',)}"]["train_sums"]) == ["loss_fn"]


@pytest.mark.parametrize("losses", [None, ["heads.0", "loss_fn"]])
@pytest.mark.condition("PolynomialTermMonitor", "several of a kind for one loss", refused="it would be counted twice")
def test_the_same_loss_twice_is_refused(two, make_trainer, losses):
    callbacks = [PolynomialTermMonitor(losses=["loss_fn"]), PolynomialTermMonitor(losses=losses)]
    with pytest.raises(ValueError, match=r"two PolynomialTermMonitors .*\['loss_fn'\]; set `losses` on each"):
        make_trainer(callbacks=callbacks, max_epochs=1).fit(two)


@pytest.mark.parametrize(
    "callbacks",
    [
        [PolynomialTermMonitor()],
        [PolynomialTermMonitor(losses=["heads.a b"]), PolynomialTermMonitor(losses=["heads.a_b"])],
        [EpsilonScheduler(LinearSchedule(0.0, 1.0), loss=["heads.a b", "heads.a_b"])],
    ],
)
def test_two_losses_with_one_name_in_the_log_are_refused(observed, make_trainer, callbacks):
    module = observed()
    module.heads = nn.ModuleDict({"a b": Poly1CrossEntropyLoss(0.0), "a_b": Poly1CrossEntropyLoss(5.0)})
    with pytest.raises(ValueError, match=r"the losses at 'heads.a b' and 'heads.a_b' would both be logged as"):
        make_trainer(callbacks=callbacks, max_epochs=1).fit(module)


def test_of_two_losses_with_one_name_in_the_log_one_may_be_chosen(observed, make_trainer):
    module = observed()
    module.heads = nn.ModuleDict({"a b": module.loss_fn, "a_b": Poly1CrossEntropyLoss(5.0)})
    trainer = make_trainer(callbacks=[PolynomialTermMonitor(losses=["heads.a b"])], max_epochs=1)
    trainer.fit(module)
    assert trainer.callback_metrics["poly/epsilon"] == module.loss_fn.epsilon
