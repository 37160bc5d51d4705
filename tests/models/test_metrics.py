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


def check_calibration(values, probability, right):
    """Compare with sums over the predictions whose probability is between k / 15 and (k + 1) / 15."""
    probability, right = probability.flatten().double(), right.flatten().double()
    bins = [(probability >= k / 15) & (probability < (k + 1) / 15) for k in range(15)]
    sums = [[bin.sum(), probability[bin].sum(), right[bin].sum()] for bin in bins]
    torch.testing.assert_close(values["reliability"].T, torch.tensor(sums), rtol=1e-4, atol=1e-5, check_dtype=False)
    gaps = sum(abs(expected - hits) for _, expected, hits in sums)
    assert float(values["calibration_error"]) == pytest.approx(float(gaps / len(right)), abs=1e-5)


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
    check_calibration(values, logits.softmax(1).amax(1), guess == target)
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
    precisions = sklearn_metrics.precision_score(target, guess, average=None, zero_division=float("nan"))
    assert values["precision"].tolist() == pytest.approx(precisions.tolist(), nan_ok=True)
    assert float(values["macro_f1"]) == pytest.approx(sklearn_metrics.f1_score(target, guess, **options).mean())
    check_calibration(values, probabilities, target)
    precision = sklearn_metrics.average_precision_score(target, probabilities, average="macro")
    assert float(values["mean_average_precision"]) == pytest.approx(precision, abs=1e-6)


def test_a_class_without_samples_enters_no_mean():
    values = computed("multiclass", torch.eye(3)[[0, 2]], torch.tensor([0, 1]), [2])
    assert math.isnan(values["recall"][2])
    assert values["balanced_accuracy"] == 0.5


def test_a_label_without_samples_enters_no_mean_average_precision():
    probabilities = torch.tensor([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3]])
    values = computed("multilabel", probabilities, torch.tensor([[0, 0, 0], [1, 1, 0]]), [1, 1])
    assert values["mean_average_precision"] == 0.75  # of 1/2 and 1
    assert math.isnan(
        computed("multilabel", probabilities, torch.zeros(2, 3, dtype=torch.long), [2])["mean_average_precision"]
    )


def test_certain_predictions_are_in_the_last_bin_and_those_that_are_nan_in_none():
    probabilities = torch.tensor([[1.0, 0.0], [float("nan"), float("nan")], [0.0, 1.0]])
    values = computed("multiclass", probabilities, torch.tensor([0, 0, 0]), [3])
    assert values["reliability"][:, -1].tolist() == [2, 2, 1]
    assert values["reliability"].sum() == 5


def test_thousands_of_classes_have_no_confusion_matrix():
    assert "confusion_matrix" in default_metrics("multiclass", 1000)
    assert "confusion_matrix" not in default_metrics("multiclass", 1001)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_metrics_add_nothing_to_a_state_dict(task):
    assert MetricCollection(default_metrics(task, 3)).state_dict() == {}
