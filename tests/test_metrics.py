"""The metric as one of torchmetrics: its state, copies, devices, collections and plots."""

import copy
import pickle
import sys

import matplotlib as mpl
import pytest
import torch
from torchmetrics import MetricCollection

from polyloss_lightning import PolynomialTerms
from polyloss_lightning.core import Observation
from polyloss_lightning.losses import Poly1CrossEntropyLoss

mpl.use("agg")
NAMES = ["term_1", "term_2", "term_3", "tail", "loss", "base_loss", "correction", "first_term_share", "pt"]


def call(loss, metric, *batches):
    with loss.register_observer(metric.update):
        return [loss(input, target) for input, target in batches]


def batch(n=12, classes=4, scale=2.0):
    return scale * torch.randn(n, classes), torch.randint(classes, (n,))


def scalars(metric):
    return {name: float(value) for name, value in metric.compute().items() if value.dim() == 0}


def test_forward_gives_the_batch_and_keeps_the_sum():
    loss, seen = Poly1CrossEntropyLoss(1.0), []
    with loss.register_observer(seen.append):
        first, second = loss(*batch()), loss(*batch())
    metric = PolynomialTerms()
    assert float(metric(seen[0])["loss"]) == pytest.approx(float(first), rel=1e-6)
    assert float(metric(seen[1])["loss"]) == pytest.approx(float(second), rel=1e-6)
    assert float(metric.compute()["loss"]) == pytest.approx(float(first + second) / 2, rel=1e-6)


def test_half_precision_of_the_model_does_not_reach_the_sums():
    assert PolynomialTerms().half().sums.dtype == torch.float64
    assert torch.nn.ModuleList([PolynomialTerms()]).bfloat16()[0].sums.dtype == torch.float64


def test_clone_pickle_and_copy_go_their_own_ways():
    loss, metric = Poly1CrossEntropyLoss(1.0), PolynomialTerms(num_classes=4)
    call(loss, metric, batch())
    before = scalars(metric)
    for twin in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert scalars(twin) == before
        call(loss, twin, batch())
        assert scalars(twin) != before
    assert scalars(metric) == before


def test_it_adds_no_key_to_a_state_dict():
    metric = PolynomialTerms(num_classes=3)
    call(Poly1CrossEntropyLoss(), metric, batch(classes=3))
    assert metric.state_dict() == {}


def test_a_collection_keeps_metrics_of_different_terms_apart():
    loss, seen = Poly1CrossEntropyLoss(1.0), []
    with loss.register_observer(seen.append):
        loss(*batch())
    metrics = MetricCollection({"two": PolynomialTerms(2), "five": PolynomialTerms(5)}, prefix="t_")
    metrics.update(seen[0])
    values = metrics.compute()
    assert any("term_5" in name for name in values)


def test_nothing_waits_for_the_device():
    """Meta tensors hold no values: whatever needs one fails."""
    observation = Observation(
        torch.zeros(6, device="meta"),
        torch.ones(6, device="meta"),
        torch.zeros(6, device="meta", dtype=torch.long),
        torch.ones((), device="meta"),
        (1.0, 0.2),
        0.5,
        None,
    )
    PolynomialTerms(num_classes=3).to("meta").update(observation)


def test_plot_draws_the_scalars_now_and_over_time():
    loss, metric, steps = Poly1CrossEntropyLoss(), PolynomialTerms(num_classes=4), []
    for _ in range(3):
        call(loss, metric, batch())
        steps.append(metric.compute())
    figure, ax = metric.plot()
    assert figure is not None
    assert len(ax.lines) == len(NAMES)
    _, over_time = metric.plot(steps)
    assert {len(line.get_xdata()) for line in over_time.lines} == {3}
    assert metric.plot(steps[0], ax=ax)[1] is ax


def test_plot_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'polyloss-lightning\[cli\]'"):
        PolynomialTerms().plot()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_terms": 0}, ValueError),
        ({"num_terms": 1.5}, TypeError),
        ({"num_terms": True}, TypeError),
        ({"num_classes": 1}, ValueError),
    ],
)
def test_impossible_sizes_are_refused(options, error):
    with pytest.raises(error, match=f"`{next(iter(options))}` must be an integer of at least"):
        PolynomialTerms(**options)
