from collections import Counter

import lightning.pytorch as pl
import numpy
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import TensorDataset

from polyloss_lightning.callbacks import PolynomialTermMonitor
from polyloss_lightning.callbacks.monitor.class_values import class_values, counts_seen
from polyloss_lightning.losses import Poly1CrossEntropyLoss, Poly1FocalLoss
from polyloss_lightning.metrics import PolynomialTerms
from polyloss_lightning.record import read_record


@pytest.fixture
def skewed(observed):
    """Classes 2, 0, 1 with 24, 12 and 4 samples, which class weights even out."""
    target = torch.tensor([2] * 24 + [0] * 12 + [1] * 4)[torch.randperm(40)]
    data = TensorDataset(torch.randn(40, 4), target)
    return lambda **options: observed(data=data, loss_fn=Poly1CrossEntropyLoss(1.0, weight=[2.0, 6.0, 1.0]), **options)


def fit(make_trainer, module, monitor):
    trainer = make_trainer(callbacks=[monitor], max_epochs=1)
    trainer.fit(module)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_each_class_and_third_is_logged(make_trainer, skewed):
    module = skewed()
    values = fit(make_trainer, module, PolynomialTermMonitor(per_class=True))
    logits, target = (torch.cat(part) for part in zip(*module.calls["train"], strict=True))
    pt = logits.double().softmax(1).gather(1, target[:, None])[:, 0]
    for third, k in (("head", 2), ("middle", 0), ("tail", 1)):
        own = pt[target == k]
        for name, value in {
            "pt": own.mean(),
            "first_term_share": (2 * own / (1 + own)).mean(),
            "first_term_gradient": torch.tensor(2 * 24 / 72),  # the weights make every class pull alike
        }.items():
            assert values[f"train/poly/{name}_class/{k}"] == pytest.approx(float(value), rel=1e-5)
            assert values[f"train/poly/{name}_{third}"] == pytest.approx(float(value), rel=1e-5)


@pytest.fixture
def fit_with_counts(make_trainer, skewed):
    def run(counts, **options):
        module = skewed()

        class Data(pl.LightningDataModule):
            class_counts = counts

            def train_dataloader(self):
                return module.loader

            val_dataloader = train_dataloader

        trainer = make_trainer(callbacks=[PolynomialTermMonitor(per_class=True, **options)], max_epochs=1)
        trainer.fit(module, datamodule=Data())
        return trainer

    return run


@pytest.mark.parametrize("counts", [(1, 3, 2), Counter([1, 2, 1, 0, 1, 2]), {2: 2, 1: 3, 0: 1}, numpy.array([1, 3, 2])])
def test_counts_of_the_datamodule_come_first(fit_with_counts, counts):
    trainer = fit_with_counts(counts)
    values = trainer.callback_metrics
    for stage in ("train", "val"):
        assert values[f"{stage}/poly/pt_head"] == values[f"{stage}/poly/pt_class/1"]


def test_counts_by_something_else_than_class_indices_are_an_error(fit_with_counts):
    with pytest.raises(ValueError, match=r"`class_counts` .* mapping from the index of each class.*got 'cat'"):
        fit_with_counts({"cat": 3, "dog": 1})


def test_more_counts_than_classes_are_an_error(fit_with_counts):
    with pytest.raises(ValueError, match=r"`num_classes` is 2, but there are 3 `class_counts`"):
        fit_with_counts([1, 3, 2], num_classes=2)


def test_a_number_of_classes_of_numpy_is_a_number(make_trainer, skewed):
    module = skewed()
    module.num_classes = numpy.int64(3)
    assert "train/poly/pt_class/2" in fit(make_trainer, module, PolynomialTermMonitor(per_class=True))


def test_with_many_classes_the_record_alone_has_their_values(make_trainer, observed, tmp_path):
    target = torch.arange(101).repeat(2)
    module = observed(data=TensorDataset(torch.randn(202, 4), target), loss_fn=Poly1CrossEntropyLoss())
    module.net = torch.nn.Linear(4, 101)
    monitor = PolynomialTermMonitor(per_class=True, num_classes=101, figures=False)
    trainer = make_trainer(callbacks=[monitor], max_epochs=1, logger=CSVLogger(tmp_path))
    trainer.fit(module)
    assert not any("_class/" in name for name in trainer.callback_metrics)
    logits, target = (torch.cat(part) for part in zip(*module.calls["train"], strict=True))
    pt = logits.double().softmax(1).gather(1, target[:, None])[:, 0]
    recorded = read_record(trainer.log_dir).select("train")[0].classes.pt
    assert recorded == pytest.approx([float(pt[target == k].mean()) for k in range(101)], rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_first_epoch_tells_the_counts_otherwise(make_trainer, observed, skewed, smoothing):
    module = skewed()
    if smoothing:
        module.loss_fn = Poly1CrossEntropyLoss(1.0, label_smoothing=smoothing)
    values = fit(make_trainer, module, PolynomialTermMonitor(per_class=True))
    assert values["train/poly/pt_tail"] == pytest.approx(values["train/poly/pt_class/1"])
    assert "val/poly/pt_class/1" in values
    assert "val/poly/pt_tail" not in values  # validation ends before the first training epoch


def test_number_of_classes_must_be_known_and_right(make_trainer, skewed):
    def run(num_classes):
        module = skewed()
        del module.num_classes
        return fit(make_trainer, module, PolynomialTermMonitor(per_class=True, num_classes=num_classes))

    with pytest.raises(ValueError, match="needs the number of classes"):
        run(None)
    with pytest.raises(ValueError, match="`num_classes` must be the number of classes of the loss, got 2"):
        run(2)
    assert "train/poly/pt_class/2" in run(3)


def test_a_class_that_was_not_seen_has_no_value():
    nan = float("nan")
    vectors = {
        "class_weight": [2.0, 0.0, 1.0, 1.0],
        "class_pt": [0.5, nan, 0.25, 0.75],
        "class_first_term_share": [0.5, nan, 0.25, 0.75],
        "class_first_term_gradient": [1.0, 0.0, 0.5, 0.5],
    }
    values = class_values(vectors, [40.0, 0.0, 20.0, 30.0])
    assert "pt_class/1" not in values
    assert "pt_tail" not in values
    assert values["first_term_gradient_tail"] == 0
    assert values["pt_head"] == pytest.approx((2 * 0.5 + 0.75) / 3)
    assert values["first_term_gradient_head"] == 1.5


SAMPLES = torch.tensor([12, 4, 24])


def seen_by(loss, target):
    metric = PolynomialTerms(num_classes=3)
    with loss.register_observer(metric.update):
        loss(torch.randn(40, 3), target)
    return {name: value.tolist() for name, value in metric.compute().items()}


@pytest.mark.parametrize("weight", [None, (1 / SAMPLES).tolist(), [0.1, 9.0, 0.2]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("loss", [Poly1CrossEntropyLoss, Poly1FocalLoss])
def test_counts_are_the_samples_whatever_weighs_them(loss, weight, smoothing, soft):
    target = torch.arange(3).repeat_interleave(SAMPLES)
    loss = loss(weight=weight, label_smoothing=smoothing)
    if soft:
        target = torch.nn.functional.one_hot(target, 3).float()
    assert counts_seen(seen_by(loss, target), loss) == pytest.approx(SAMPLES.tolist(), abs=1e-2)


def test_balanced_classes_have_no_counts():
    target = torch.arange(40) % 2
    for loss in (
        Poly1CrossEntropyLoss(label_smoothing=0.1, weight=[1.0, 7.0]),
        Poly1CrossEntropyLoss(weight=[0.3, 0.7]),
    ):
        metric = PolynomialTerms(num_classes=2)
        with loss.register_observer(metric.update):
            loss(torch.randn(40, 2), target)
        values = {name: value.tolist() for name, value in metric.compute().items()}
        assert counts_seen(values, loss) is None


def test_a_loss_whose_weights_are_unknown_has_the_counts_of_its_entries_or_none():
    target = torch.arange(3).repeat_interleave(SAMPLES)
    weight = (1 / SAMPLES).tolist()
    stand_in = object()
    assert counts_seen(seen_by(Poly1CrossEntropyLoss(weight=weight), target), stand_in) == SAMPLES.tolist()
    smoothed = Poly1CrossEntropyLoss(weight=weight, label_smoothing=0.1)
    assert counts_seen(seen_by(smoothed, target), stand_in) is None
    without_one = Poly1CrossEntropyLoss(weight=[1.0, 0.0, 2.0], label_smoothing=0.1)
    assert counts_seen(seen_by(without_one, target), without_one) is None


def test_thirds_are_right_where_smoothed_classes_are_weighted_by_their_rarity(make_trainer, skewed):
    module = skewed()
    module.loss_fn = Poly1CrossEntropyLoss(1.0, weight=(1 / SAMPLES).tolist(), label_smoothing=0.1)
    values = fit(make_trainer, module, PolynomialTermMonitor(per_class=True))
    for third, k in (("head", 2), ("middle", 0), ("tail", 1)):
        assert values[f"train/poly/pt_{third}"] == pytest.approx(values[f"train/poly/pt_class/{k}"])


def test_targets_that_are_no_numbers_do_not_end_the_run(make_trainer, skewed, observed):
    target = torch.nn.functional.one_hot(torch.arange(8) % 3, 3).float()
    target[5] = torch.nan
    module = observed(data=TensorDataset(torch.randn(8, 4), target), loss_fn=Poly1CrossEntropyLoss())
    assert "train/poly/pt" in fit(make_trainer, module, PolynomialTermMonitor(per_class=True))
