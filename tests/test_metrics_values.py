"""The values of the metric, against float64 formulas."""

import math

import pytest
import torch

from polyloss_lightning import PolynomialTerms
from polyloss_lightning.core import Observation
from polyloss_lightning.losses import (
    Poly1BCEWithLogitsLoss,
    Poly1CrossEntropyLoss,
    Poly1FocalLoss,
    Poly1SigmoidFocalLoss,
)
from polyloss_lightning.metrics import term_names, term_sums, term_values, zero_sums

NAMES = ["term_1", "term_2", "term_3", "tail", "loss", "base_loss", "correction", "first_term_share", "pt"]


def call(loss, metric, *batches):
    with loss.register_observer(metric.update):
        return [loss(input, target) for input, target in batches]


def batch(n=12, classes=4, scale=2.0):
    return scale * torch.randn(n, classes), torch.randint(classes, (n,))


def expected(batches, epsilon, weight=None, gamma=0.0, ignore=-100, terms=3):
    """The values by float64 formulas, with a class weight and class-index targets."""
    sums = dict.fromkeys(["loss", "base", "share", "pt", "weight", *range(1, terms + 1)], 0.0)
    for input, target in batches:
        for logits, index in zip(input.double(), target.tolist(), strict=True):
            if index == ignore:
                continue
            w = 1.0 if weight is None else float(weight[index])
            pt = float(logits.softmax(0)[index])
            base = -((1 - pt) ** gamma) * math.log(pt)
            slope = (1 - pt) ** gamma / pt - gamma * (1 - pt) ** (gamma - 1) * math.log(pt)  # -dL/dPt
            slope += epsilon * (1 + gamma) * (1 - pt) ** gamma
            for j in range(1, terms + 1):
                sums[j] += w * (1 / j + (epsilon if j == 1 else 0)) * (1 - pt) ** (j + gamma)
            sums["loss"] += w * (base + epsilon * (1 - pt) ** (1 + gamma))
            sums["base"] += w * base
            sums["share"] += w * (1 + epsilon) * (1 + gamma) * (1 - pt) ** gamma / slope
            sums["pt"] += w * pt
            sums["weight"] += w
    mean = {key: total / sums["weight"] for key, total in sums.items()}
    first = [mean[j] for j in range(1, terms + 1)]
    values = [*first, mean["loss"] - sum(first), mean["loss"], mean["base"], mean["loss"] - mean["base"]]
    return dict(zip(NAMES, [*values, mean["share"], mean["pt"]], strict=True))


def scalars(metric):
    return {name: float(value) for name, value in metric.compute().items() if value.dim() == 0}


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 2.0])
@pytest.mark.parametrize("weight", [None, [0.2, 1.0, 3.0, 0.5]])
def test_values_are_the_formulas(epsilon, weight):
    batches = [batch(), batch(5)]
    metric = PolynomialTerms()
    call(Poly1CrossEntropyLoss(epsilon, weight=weight), metric, *batches)
    assert scalars(metric) == pytest.approx(expected(batches, epsilon, weight), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_values_are_the_formulas_with_focusing(gamma):
    batches = [batch()]
    metric = PolynomialTerms()
    call(Poly1FocalLoss(1.0, gamma=gamma), metric, *batches)
    assert scalars(metric) == pytest.approx(expected(batches, 1.0, gamma=gamma), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    "loss",
    [
        Poly1CrossEntropyLoss([1.0, -0.3, 0.2, 4.0], label_smoothing=0.1),
        Poly1CrossEntropyLoss(2.0, num_terms=2),
        Poly1CrossEntropyLoss(0.0, num_terms=9, reduction="sum"),
        Poly1BCEWithLogitsLoss(-1.0),
        Poly1SigmoidFocalLoss(2.0, reduction="mean"),
    ],
    ids=repr,
)
def test_terms_and_tail_are_the_loss(loss):
    input, target = batch()
    if isinstance(loss, Poly1BCEWithLogitsLoss | Poly1SigmoidFocalLoss):
        target = torch.rand_like(input)
    metric = PolynomialTerms()
    (value,) = call(loss, metric, (input, target))
    seen = scalars(metric)
    assert seen["loss"] == pytest.approx(float(value), rel=1e-6)
    assert seen["base_loss"] == pytest.approx(float(loss.base_loss(input, target)), rel=1e-6)
    assert sum(seen[f"term_{j}"] for j in (1, 2, 3)) + seen["tail"] == pytest.approx(seen["loss"], rel=1e-12)
    assert seen["base_loss"] + seen["correction"] == pytest.approx(seen["loss"], rel=1e-12)
    if loss.num_terms == 2:
        assert seen["term_3"] == 0
        assert seen["tail"] == pytest.approx(0, abs=1e-7)


def test_epoch_value_is_that_of_one_batch_with_everything():
    loss = Poly1CrossEntropyLoss(1.0, weight=[0.1, 1.0, 5.0, 2.0])
    input, target = batch(30)
    whole, parts = PolynomialTerms(num_classes=4), PolynomialTerms(num_classes=4)
    call(loss, whole, (input, target))
    values = call(loss, parts, *zip(input.split(7), target.split(7), strict=True))
    for name, value in whole.compute().items():
        torch.testing.assert_close(parts.compute()[name], value, rtol=1e-6, atol=1e-9, equal_nan=True)
    assert float(torch.stack(values).mean()) != pytest.approx(float(whole.compute()["loss"]), rel=1e-3)


def test_the_pure_functions_are_the_metric_and_their_sums_are_added():
    loss, seen = Poly1CrossEntropyLoss(1.0, weight=[0.1, 1.0, 5.0, 2.0]), []
    batches = [batch(), batch(5)]
    with loss.register_observer(seen.append):
        for input, target in batches:
            loss(input, target)
    sums = zero_sums(3, 4)
    for observation in seen:
        sums = sums + term_sums(observation, 3, 4)
    values = term_values(sums, 3, 4)
    assert list(values)[: len(NAMES)] == term_names(3) == NAMES
    found = {name: float(values[name]) for name in NAMES}
    assert found == pytest.approx(expected(batches, 1.0, weight=[0.1, 1.0, 5.0, 2.0]), rel=1e-5)
    assert "class_pt" not in term_values(sums, 3)


def test_a_sum_counts_as_the_mean_over_calls_and_pt_as_a_mean():
    loss, metric = Poly1CrossEntropyLoss(1.0, reduction="sum"), PolynomialTerms()
    batches = [batch(), batch(5)]
    values = call(loss, metric, *batches)
    assert float(metric.compute()["loss"]) == pytest.approx(float(sum(values)) / 2, rel=1e-6)
    assert float(metric.compute()["pt"]) == pytest.approx(expected(batches, 1.0)["pt"], rel=1e-6)


def test_epsilon_may_move_from_call_to_call():
    loss, metric = Poly1CrossEntropyLoss(-1.0), PolynomialTerms()
    batches, parts = [batch(), batch()], []
    for epsilon, one in zip((-1.0, 2.0), batches, strict=True):
        loss.epsilon = epsilon
        call(loss, metric, one)
        parts.append(expected([one], epsilon))
    assert scalars(metric) == pytest.approx({name: (parts[0][name] + parts[1][name]) / 2 for name in NAMES}, rel=1e-5)


def test_ignored_targets_count_for_nothing_even_where_logits_are_infinite():
    loss, metric = Poly1CrossEntropyLoss(1.0, ignore_index=2), PolynomialTerms(num_classes=4)
    input, target = batch()
    input[target == 2] = torch.tensor([math.inf, 0, -math.inf, 0])
    call(loss, metric, (input, target), (input[:3], torch.full((3,), 2)))
    assert scalars(metric) == pytest.approx(expected([(input, target)], 1.0, ignore=2), rel=1e-5)
    assert metric.compute()["class_weight"].sum() == (target != 2).sum()


def test_without_any_target_there_is_no_value():
    metric = PolynomialTerms()
    call(Poly1CrossEntropyLoss(), metric, (torch.randn(3, 4), torch.full((3,), -100)))
    assert not metric.sums.isnan().any()
    assert all(math.isnan(value) for value in scalars(metric).values())


def test_below_minus_one_there_is_no_share_but_all_else():
    metric = PolynomialTerms()
    with pytest.warns(UserWarning, match="below -1"):
        loss = Poly1CrossEntropyLoss(-1.5)
    call(loss, metric, batch())
    seen = scalars(metric)
    assert math.isnan(seen.pop("first_term_share"))
    assert all(math.isfinite(value) for value in seen.values())


def test_histogram_holds_the_weight_of_each_bin():
    pt = torch.tensor([0.0, 0.011, 0.5, 0.985, 1.0])
    weight = torch.tensor([1.0, 2.0, 0.0, 4.0, 8.0])
    metric = PolynomialTerms()
    metric.update(Observation(pt.log(), weight, torch.zeros(5).long(), weight.sum(), (1.0,), 0.0, None))
    bins = metric.compute()["pt_histogram"]
    assert bins[0] == 3
    assert bins[49] == 12
    assert bins.sum() == 15


def test_class_values_are_those_of_the_class_alone():
    weight = torch.tensor([0.5, 1.0, 2.0, 4.0])
    input, target = batch(40)
    target[target == 3] = 0
    metric = PolynomialTerms(num_classes=4)
    call(Poly1CrossEntropyLoss(1.0, weight=weight), metric, (input, target))
    values, total = metric.compute(), weight[target].sum()
    for k in range(3):
        alone = expected([(input[target == k], target[target == k])], 1.0)
        assert float(values["class_pt"][k]) == pytest.approx(alone["pt"], rel=1e-5)
        assert float(values["class_first_term_share"][k]) == pytest.approx(alone["first_term_share"], rel=1e-5)
        count = int((target == k).sum())
        assert values["class_count"][k] == count
        assert float(values["class_weight"][k]) == pytest.approx(float(count * weight[k]))
        # With epsilon 1 every entry's first term pulls with 2, whatever its Pt: the class's gradient counts entries.
        assert float(values["class_first_term_gradient"][k]) == pytest.approx(float(2 * count * weight[k] / total))
    assert values["class_weight"][3] == 0
    assert values["class_pt"][3].isnan()


def test_classes_beyond_the_last_are_missing_in_the_vectors_only():
    metric = PolynomialTerms(num_classes=2)
    input, target = batch(20)
    call(Poly1CrossEntropyLoss(1.0), metric, (input, target))
    values = metric.compute()
    assert values["class_weight"].sum() == (target < 2).sum()
    assert float(values["pt"]) == pytest.approx(expected([(input, target)], 1.0)["pt"], rel=1e-5)


def test_long_epochs_keep_their_digits():
    metric = PolynomialTerms()
    metric.sums += 2.0**30
    before = metric.sums.clone()
    call(Poly1CrossEntropyLoss(), metric, batch(1))
    assert (metric.sums[:9] > before[:9]).all()
    assert metric.sums.dtype == torch.float64


def test_reset_forgets():
    metric = PolynomialTerms()
    call(Poly1CrossEntropyLoss(), metric, batch())
    metric.reset()
    one = batch()
    call(Poly1CrossEntropyLoss(), metric, one)
    assert scalars(metric) == pytest.approx(expected([one], 1.0), rel=1e-5)
