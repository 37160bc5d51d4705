import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from polyloss_lightning.models.metrics import default_metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def computed(task, probabilities, target, batch_sizes):
    metrics = MetricCollection(default_metrics(task, probabilities.shape[1]), compute_groups=False)
    for part, labels in zip(probabilities.split(batch_sizes), target.split(batch_sizes), strict=True):
        metrics.update(part, labels)
    return metrics.compute()


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 30))
def test_values_of_one_class_per_image_are_those_of_scikit_learn(seed, num_classes, first_batch):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(60, num_classes, generator=generator) * 2
    # Every class occurs, because scikit-learn has no NaN recall.
    target = torch.cat(
        [torch.arange(num_classes), torch.randint(num_classes, (60 - num_classes,), generator=generator)]
    )
    values = computed("multiclass", logits.softmax(1), target, [first_batch, 60 - first_batch])
    guess = logits.argmax(1)
    recall = sklearn_metrics.recall_score(target, guess, average=None)
    assert values["recall"].tolist() == pytest.approx(recall.tolist(), abs=1e-6)
    assert float(values["balanced_accuracy"]) == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(target, guess), abs=1e-6
    )
    assert float(values["macro_f1"]) == pytest.approx(
        sklearn_metrics.f1_score(target, guess, average="macro"), abs=1e-6
    )
    assert values["confusion_matrix"].tolist() == sklearn_metrics.confusion_matrix(target, guess).tolist()


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 30))
def test_values_of_several_labels_per_image_are_those_of_scikit_learn(seed, num_labels, first_batch):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(60, num_labels, generator=generator)
    target = (torch.rand(60, num_labels, generator=generator) < 0.3).long()
    target[0] = 1  # every label occurs
    values = computed("multilabel", probabilities, target, [first_batch, 60 - first_batch])
    guess = (probabilities > 0.5).long()
    options = {"average": None, "zero_division": 0}
    assert values["recall"].tolist() == pytest.approx(sklearn_metrics.recall_score(target, guess, **options).tolist())
    assert float(values["macro_f1"]) == pytest.approx(sklearn_metrics.f1_score(target, guess, **options).mean())
    precision = sklearn_metrics.average_precision_score(target, probabilities, average="macro")
    assert float(values["mean_average_precision"]) == pytest.approx(precision, abs=1e-6)


def test_a_class_without_samples_enters_no_mean():
    values = computed("multiclass", torch.eye(3)[[0, 2]], torch.tensor([0, 1]), [2])
    assert math.isnan(values["recall"][2])
    assert values["balanced_accuracy"] == 0.5


def test_thousands_of_classes_have_no_confusion_matrix():
    assert "confusion_matrix" in default_metrics("multiclass", 1000)
    assert "confusion_matrix" not in default_metrics("multiclass", 1001)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_metrics_add_nothing_to_a_state_dict(task):
    assert MetricCollection(default_metrics(task, 3)).state_dict() == {}
