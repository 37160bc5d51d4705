import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning.models.metrics import ClassificationMetrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def computed(logits, target, batch_sizes):
    metrics = ClassificationMetrics(logits.shape[1])
    for part, labels in zip(logits.split(batch_sizes), target.split(batch_sizes), strict=True):
        metrics.update(part, labels)
    return {name: float(value) for name, value in metrics.compute().items()}


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 30))
def test_values_are_those_of_scikit_learn_and_torch_over_all_samples(seed, num_classes, first_batch):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(60, num_classes, generator=generator) * 2
    # Every class occurs: scikit-learn knows no NaN recall.
    target = torch.cat(
        [torch.arange(num_classes), torch.randint(num_classes, (60 - num_classes,), generator=generator)]
    )
    values = computed(logits, target, [first_batch, 60 - first_batch])
    guess = logits.argmax(1)
    recall = sklearn_metrics.recall_score(target, guess, average=None)
    assert [values[f"recall_class/{k}"] for k in range(num_classes)] == pytest.approx(recall.tolist(), abs=1e-6)
    assert values["balanced_accuracy"] == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(target, guess), abs=1e-6
    )
    assert values["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(target, guess, average="macro"), abs=1e-6)
    assert values["cross_entropy"] == pytest.approx(float(F.cross_entropy(logits.double(), target)), rel=1e-5)
    pt = logits.double().softmax(1).gather(1, target[:, None]).mean()
    assert values["pt"] == pytest.approx(float(pt), rel=1e-5)


def test_equal_first_batches_of_different_metrics_stay_apart():
    # A MetricCollection would merge metrics whose states look alike after the first batch.
    pt = 0.567143290409784  # where pt = -log(pt)
    logits = torch.tensor([[math.log(pt), math.log(1 - pt)]])
    values = computed(torch.cat([logits, logits * 3]), torch.tensor([0, 0]), [1, 1])
    assert values["cross_entropy"] != pytest.approx(values["pt"], abs=1e-3)


def test_a_class_without_samples_enters_no_mean():
    values = computed(torch.eye(3)[[0, 2]], torch.tensor([0, 1]), [2])
    assert math.isnan(values["recall_class/2"])
    assert values["balanced_accuracy"] == 0.5


def test_reset_forgets_every_sample():
    metrics = ClassificationMetrics(2)
    metrics.update(torch.tensor([[9.0, 0.0]]), torch.tensor([1]))
    metrics.reset()
    metrics.update(torch.tensor([[9.0, 0.0]]), torch.tensor([0]))
    assert metrics.compute()["balanced_accuracy"] == 1


def test_metrics_add_nothing_to_a_state_dict():
    assert ClassificationMetrics(3).state_dict() == {}
