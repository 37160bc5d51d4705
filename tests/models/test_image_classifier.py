import functools
import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.models import ImageClassifier, SmallCNN

GENERATOR = torch.Generator().manual_seed(0)
DATA = TensorDataset(torch.rand(30, 1, 8, 8, generator=GENERATOR), torch.arange(30) % 3)
LOADER = DataLoader(DATA, batch_size=8)  # the last batch is shorter: means over batches differ from means over samples


def network():
    torch.manual_seed(0)
    return SmallCNN(num_classes=3, width=4)


def classifier(**kwargs):
    return ImageClassifier(network(), num_classes=3, **kwargs)


def trainer(path, **kwargs):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": 2, "default_root_dir": path, "enable_checkpointing": False, **quiet, **kwargs})


def stage_names(stage):
    names = [
        "loss",
        "balanced_accuracy",
        "macro_f1",
        "calibration_error",
        "cross_entropy",
        "pt",
        "recall_class/0",
        "recall_class/1",
        "recall_class/2",
    ]
    return {f"{stage}/{name}" for name in names}


def test_each_stage_logs_its_names(tmp_path):
    model, run = classifier(), trainer(tmp_path)
    run.fit(model, LOADER, LOADER)
    assert set(run.callback_metrics) == stage_names("val") | {
        "train/loss",
        "train/loss_step",
        "train/loss_epoch",
    }
    assert {"train/loss_step", "val/balanced_accuracy"} <= set(run.progress_bar_metrics)
    (tested,) = run.test(model, LOADER, verbose=False)
    assert set(tested) == stage_names("test")


def test_logged_values_are_exact_over_the_part(tmp_path):
    model = classifier(loss_fn=Poly1CrossEntropyLoss(epsilon=2.0))
    (values,) = trainer(tmp_path).validate(model, LOADER, verbose=False)
    images, target = DATA.tensors
    with torch.no_grad():
        logits = model.eval()(images).double()
    pt = logits.softmax(1).gather(1, target[:, None])[:, 0]
    cross_entropy = F.cross_entropy(logits, target)
    recall = [float((logits.argmax(1) == k)[target == k].double().mean()) for k in range(3)]
    assert values["val/cross_entropy"] == pytest.approx(float(cross_entropy), rel=1e-5)
    assert values["val/loss"] == pytest.approx(float(cross_entropy + 2 * (1 - pt).mean()), rel=1e-5)
    assert values["val/pt"] == pytest.approx(float(pt.mean()), rel=1e-5)
    assert [values[f"val/recall_class/{k}"] for k in range(3)] == pytest.approx(recall)
    assert values["val/balanced_accuracy"] == pytest.approx(sum(recall) / 3)


def test_the_sanity_check_is_not_counted(tmp_path):
    model, run = classifier(optimizer=functools.partial(torch.optim.SGD, lr=0.0)), trainer(tmp_path, max_epochs=1)
    run.fit(model, LOADER, LOADER)
    (values,) = trainer(tmp_path).validate(model, LOADER, verbose=False)
    assert float(run.callback_metrics["val/cross_entropy"]) == pytest.approx(values["val/cross_entropy"])


def test_the_loss_depends_on_epsilon_and_cross_entropy_does_not(tmp_path):
    values = [
        trainer(tmp_path).validate(classifier(loss_fn=Poly1CrossEntropyLoss(eps)), LOADER, verbose=False)[0]
        for eps in (0.0, 3.0)
    ]
    assert values[0]["val/cross_entropy"] == values[1]["val/cross_entropy"]
    assert values[0]["val/loss"] == pytest.approx(values[0]["val/cross_entropy"])
    assert values[1]["val/loss"] > values[0]["val/loss"]


def test_it_learns(tmp_path):
    target = torch.arange(30) % 3
    images = torch.zeros(30, 1, 8, 8)
    images[target == 1, :, :4], images[target == 2, :, :, :4] = 1, 1
    loader = DataLoader(TensorDataset(images, target), batch_size=10)
    model = classifier(optimizer=functools.partial(torch.optim.AdamW, lr=0.01))
    run = trainer(tmp_path, max_epochs=20)
    run.fit(model, loader, loader)
    assert run.callback_metrics["val/balanced_accuracy"] == 1


@pytest.mark.parametrize("loss_fn", [None, torch.nn.CrossEntropyLoss(), Poly1CrossEntropyLoss([1.0, 0.5])])
def test_any_loss_trains(tmp_path, loss_fn):
    run = trainer(tmp_path, max_epochs=1)
    run.fit(classifier(loss_fn=loss_fn), LOADER, LOADER)
    assert "train/loss" in run.callback_metrics


def test_training_takes_soft_targets():
    model, images = classifier(), DATA.tensors[0][:4]
    model.log = lambda *args, **kwargs: None
    index, soft = torch.tensor([0, 1, 2, 0]), F.one_hot(torch.tensor([0, 1, 2, 0]), 3).float()
    torch.testing.assert_close(model.training_step((images, soft), 0), model.training_step((images, index), 0))


def test_predictions_are_probabilities_with_or_without_targets(tmp_path):
    model = classifier()
    labelled = torch.cat(trainer(tmp_path).predict(model, LOADER))
    bare = torch.cat(trainer(tmp_path).predict(model, DataLoader(DATA.tensors[0], batch_size=8)))
    torch.testing.assert_close(labelled, bare)
    torch.testing.assert_close(labelled, model.eval()(DATA.tensors[0]).softmax(1).detach())


def test_a_scheduler_steps_every_epoch(tmp_path):
    schedule = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    run = trainer(tmp_path, max_epochs=3)
    run.fit(classifier(optimizer=functools.partial(torch.optim.SGD, lr=0.8), lr_scheduler=schedule), LOADER, LOADER)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_plateau_scheduler_monitors_its_metric(tmp_path):
    schedule = functools.partial(ReduceLROnPlateau, monitor="val/cross_entropy", patience=0, factor=0.5)
    run = trainer(tmp_path, max_epochs=3)
    run.fit(classifier(optimizer=functools.partial(torch.optim.SGD, lr=0.0), lr_scheduler=schedule), LOADER, LOADER)
    assert run.lr_scheduler_configs[0].monitor == "val/cross_entropy"


def test_a_checkpoint_contains_only_tensors_and_primitives(tmp_path):
    model, run = classifier(loss_fn=Poly1CrossEntropyLoss(epsilon=-0.5)), trainer(tmp_path)
    run.fit(model, LOADER, LOADER)
    run.save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"] == {"num_classes": 3, "task": "multiclass"}
    assert set(checkpoint["state_dict"]) == {f"network.{name}" for name in network().state_dict()}
    again = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt", network=network(), weights_only=True)
    assert again.loss_fn.epsilon == -0.5
    torch.testing.assert_close(again.eval()(DATA.tensors[0]), model.eval()(DATA.tensors[0]))


def test_a_run_resumes_from_its_checkpoint(tmp_path):
    run = trainer(tmp_path, max_epochs=1)
    run.fit(classifier(), LOADER, LOADER)
    run.save_checkpoint(tmp_path / "model.ckpt")
    resumed, whole = classifier(), classifier()
    trainer(tmp_path).fit(resumed, LOADER, LOADER, ckpt_path=tmp_path / "model.ckpt")
    trainer(tmp_path).fit(whole, LOADER, LOADER)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_too_few_classes_are_named(num_classes):
    with pytest.raises(ValueError, match=f"`num_classes` must be an integer of at least 2, got {num_classes}"):
        ImageClassifier(torch.nn.Identity(), num_classes)


def test_a_checkpoint_of_a_model_built_in_python_names_what_is_missing(tmp_path):
    run = trainer(tmp_path, max_epochs=1)
    run.fit(classifier(), LOADER, LOADER)
    run.save_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(TypeError, match=r"load_from_checkpoint\(..., network=...\)"):
        ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)


def test_metrics_of_half_precision_are_computed_in_full(tmp_path):
    (values,) = trainer(tmp_path, precision="bf16-true").validate(classifier(), LOADER, verbose=False)
    assert math.isclose(values["val/cross_entropy"], math.log(3), rel_tol=0.1)
