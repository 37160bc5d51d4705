"""What chooses metrics and targets: `task`; and what does not fit it is an error at the first batch."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from polyloss_lightning.losses import (
    Poly1BCEWithLogitsLoss,
    Poly1CrossEntropyLoss,
    Poly1FocalLoss,
    Poly1SigmoidFocalLoss,
)
from polyloss_lightning.models import ImageClassifier, SmallCNN

IMAGES = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
INDICES = torch.arange(12) % 3
LABELS = (torch.rand(12, 3, generator=torch.Generator().manual_seed(1)) < 0.5).float()
LABELS[0] = 1


def loader(target):
    return DataLoader(TensorDataset(IMAGES, target), batch_size=5)


def classifier(logits=3, **kwargs):
    torch.manual_seed(0)
    return ImageClassifier(SmallCNN(num_classes=logits, width=4), **{"num_classes": 3, **kwargs})


def trainer(path, **kwargs):
    return Trainer(
        max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        default_root_dir=path, enable_checkpointing=False, **kwargs,
    )  # fmt: skip


def fit(path, model, target):
    run = trainer(path, limit_val_batches=0)
    if isinstance(target, LightningDataModule):
        run.fit(model, target)
    else:
        run.fit(model, loader(target), loader(target))
    return run


@pytest.mark.parametrize("loss", [None, Poly1SigmoidFocalLoss, torch.nn.BCEWithLogitsLoss])
@pytest.mark.parametrize("target", [LABELS, LABELS.long()], ids=["float", "long"])
def test_images_with_several_labels_have_separate_metrics(tmp_path, loss, target):
    model, run = classifier(task="multilabel", loss_fn=loss and loss()), trainer(tmp_path)
    run.fit(model, loader(target), loader(target))
    names = {"loss", "mean_average_precision", "macro_f1", "calibration_error", "binary_cross_entropy", "pt"}
    names |= {f"{name}_class/{k}" for name in ("recall", "precision") for k in range(3)}
    assert {name[4:] for name in run.callback_metrics if name.startswith("val/")} == names
    (values,) = run.validate(model, loader(target), verbose=False)
    with torch.no_grad():
        logits = model.eval()(IMAGES)
    expected = F.binary_cross_entropy_with_logits(logits, LABELS)
    assert values["val/binary_cross_entropy"] == pytest.approx(float(expected), rel=1e-5)
    predicted = torch.cat(run.predict(model, loader(target)))
    torch.testing.assert_close(predicted, logits.sigmoid())


def test_the_default_loss_depends_on_the_task():
    assert isinstance(classifier(task="multilabel").loss_fn, Poly1BCEWithLogitsLoss)
    assert isinstance(classifier().loss_fn, Poly1CrossEntropyLoss)


@pytest.mark.parametrize(
    ("task", "loss_fn", "named"),
    [
        ("multiclass", Poly1BCEWithLogitsLoss(), "Poly1BCEWithLogitsLoss needs one target per label"),
        ("multiclass", torch.nn.BCEWithLogitsLoss(), "BCEWithLogitsLoss needs one target per label"),
        ("multilabel", Poly1CrossEntropyLoss(), "Poly1CrossEntropyLoss is for images of one class each"),
        ("multilabel", Poly1FocalLoss(), "Poly1FocalLoss is for images of one class each"),
        ("multilabel", torch.nn.CrossEntropyLoss(), "CrossEntropyLoss is for images of one class each"),
    ],
)
def test_a_loss_that_does_not_fit_the_task_is_an_error(tmp_path, task, loss_fn, named):
    target = loader(INDICES if task == "multiclass" else LABELS)
    with pytest.raises(ValueError, match=named):
        trainer(tmp_path).fit(classifier(task=task, loss_fn=loss_fn), target, target)


@pytest.mark.parametrize(
    ("task", "target", "named"),
    [
        ("multiclass", LABELS, "rows that add up to 1"),
        ("multiclass", LABELS.long(), r"class indices of shape \(N\), got torch.int64 of shape \(5, 3\)"),
        ("multiclass", INDICES + 1, "a target of class 3, but `num_classes` of the model is 3"),
        ("multilabel", INDICES, r"must have shape \(N, 3\) and values between 0 and 1, got shape \(5,\)"),
        ("multilabel", LABELS * 2, "with values from 0.0 to 2.0"),
    ],
)
def test_a_target_that_does_not_fit_the_task_is_an_error_at_the_first_batch(tmp_path, task, target, named):
    with pytest.raises(ValueError, match=named):
        fit(tmp_path, classifier(task=task), target)


def test_metrics_need_targets_that_are_one_class(tmp_path):
    soft = F.one_hot(INDICES, 3).float()
    assert fit(tmp_path, classifier(), soft).global_step == 3
    with pytest.raises(ValueError, match="validation and test need class indices"):
        trainer(tmp_path).validate(classifier(), loader(soft), verbose=False)
    with pytest.raises(ValueError, match="a target of class -1: leave samples without a class out of validation"):
        trainer(tmp_path).validate(classifier(), loader(INDICES - 1), verbose=False)
    with pytest.raises(ValueError, match="values 0 or 1"):
        trainer(tmp_path).test(classifier(task="multilabel"), loader(LABELS * 0.5), verbose=False)


def test_a_network_with_another_number_of_classes_is_an_error_with_both_numbers(tmp_path):
    with pytest.raises(ValueError, match="returns 10 logits per image, but `num_classes` of the model is 3"):
        fit(tmp_path, classifier(logits=10), INDICES)


class WithFeatures(SmallCNN):
    def forward(self, input):
        return super().forward(input), input


def test_a_network_that_returns_no_tensor_is_an_error(tmp_path):
    with pytest.raises(TypeError, match="the network must return a tensor of logits, got a tuple"):
        fit(tmp_path, ImageClassifier(WithFeatures(num_classes=3, width=4), 3), INDICES)


def test_data_with_another_number_of_classes_are_an_error_with_both_numbers(tmp_path):
    data = LightningDataModule.from_datasets(*[TensorDataset(IMAGES, INDICES)] * 2)
    data.num_classes = 10
    with pytest.raises(ValueError, match="`num_classes` of the model is 3, but the data have 10 classes"):
        fit(tmp_path, classifier(), data)


def test_own_metrics_are_logged_beside_the_defaults_and_replace_those_of_the_same_name(tmp_path):
    accuracy = MulticlassAccuracy(3, average="micro")
    own = {"accuracy": accuracy, "macro_f1": MulticlassF1Score(3, average="weighted")}
    model = classifier(metrics=own)
    (values,) = trainer(tmp_path).validate(model, loader(INDICES), verbose=False)
    with torch.no_grad():
        guess = model.eval()(IMAGES).argmax(1)
    assert values["val/accuracy"] == pytest.approx(float((guess == INDICES).float().mean()))
    weighted = MulticlassF1Score(3, average="weighted")(guess, INDICES)
    assert values["val/macro_f1"] == pytest.approx(float(weighted))
    assert "val/balanced_accuracy" in values


def test_values_of_more_than_a_hundred_classes_are_kept_but_not_logged(tmp_path):
    model = classifier(logits=101, num_classes=101)
    (values,) = trainer(tmp_path).validate(model, loader(INDICES), verbose=False)
    assert not [name for name in values if "_class/" in name]
    assert model.class_results["val"]["recall"].shape == (101,)
    assert model.class_results["val"]["confusion_matrix"].sum() == 12


@pytest.mark.parametrize("task", ["multi", ""])
def test_an_unknown_task_is_named(task):
    with pytest.raises(ValueError, match=f"`task` must be one of .* got '{task}'"):
        classifier(task=task)
