"""The monitor sees what was replaced, and in validation what would be."""

import pytest
import torch.nn.functional as F

from polyloss_lightning import PolyLossOverride, PolynomialTermMonitor


@pytest.fixture
def logged(evaluated, trainer, data):
    """Metrics of a run of one epoch, and the losses that the module had in it."""

    def run(**options):
        module = evaluated()
        callbacks = [PolyLossOverride(2.0, **options), PolynomialTermMonitor(record=False, figures=False)]
        fit = trainer(callbacks=callbacks, max_epochs=1)
        fit.fit(module, data, data)
        return {name: value.item() for name, value in fit.callback_metrics.items()}, module

    return run


def test_in_training_the_terms_add_up_to_the_loss_that_was_put_in_place(logged):
    metrics, module = logged(losses=["cross_entropy"])
    assert metrics["train/poly/loss"] == pytest.approx(sum(module.losses["train"]) / 4, rel=1e-5)
    terms = [metrics[f"train/poly/{name}"] for name in ("term_1", "term_2", "term_3", "tail")]
    assert sum(terms) == pytest.approx(metrics["train/poly/loss"], rel=1e-5)


def test_in_validation_the_loss_of_the_module_is_the_base_loss_of_the_one_that_is_shown(logged, data, by_hand):
    metrics, module = logged(losses=["cross_entropy"])
    plain = sum(F.cross_entropy(module.net(x), y).item() for x, y in data) / 4
    poly = sum(by_hand(module.net(x), y).item() for x, y in data) / 4
    assert module.losses["val"] == pytest.approx([F.cross_entropy(module.net(x), y).item() for x, y in data])
    assert metrics["val/poly/base_loss"] == pytest.approx(plain, rel=1e-5)
    assert metrics["val/poly/loss"] == pytest.approx(poly, rel=1e-5)


def test_with_several_functions_the_one_that_is_called_has_its_name_in_the_log(logged):
    metrics, module = logged()
    assert metrics["train/poly/cross_entropy/loss"] == pytest.approx(sum(module.losses["train"]) / 4, rel=1e-5)


def test_a_named_override_shows_its_losses_under_its_name():
    names = list(PolyLossOverride(losses=["cross_entropy", "nll_loss"], name="head").observables())
    assert names == ["head.cross_entropy", "head.nll_loss"]
