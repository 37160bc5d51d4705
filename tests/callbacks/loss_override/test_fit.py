"""An unmodified module trains with Poly-1 while it is fitted."""

from functools import partial

import pytest
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import cross_entropy as imported_by_name

from polyloss_lightning import Poly1CrossEntropyLoss, PolyLossOverride
from polyloss_lightning.interception import LossOverrideError


def test_it_trains_as_the_same_module_with_the_loss_written_by_hand(foreign, trained, by_hand, assert_same_weights):
    module = trained(foreign(), callbacks=[PolyLossOverride(2.0)])
    expected = trained(foreign(by_hand))
    assert_same_weights(module, expected)
    assert module.losses["train"] == pytest.approx(expected.losses["train"], rel=1e-4)
    assert module.losses["train"] != pytest.approx(trained(foreign()).losses["train"])


@pytest.mark.parametrize("criterion", [imported_by_name, F.cross_entropy])
def test_the_loss_is_found_by_whatever_name(foreign, trained, by_hand, assert_same_weights, criterion):
    module = trained(foreign(criterion), callbacks=[PolyLossOverride(2.0)])
    assert_same_weights(module, trained(foreign(by_hand)))


@pytest.mark.condition("PolyLossOverride", "validation and test")
def test_validation_and_test_keep_the_loss_of_past_runs(evaluated, trainer, data):
    module, run = evaluated(), trainer(callbacks=[PolyLossOverride(2.0)])
    run.fit(module, data, data)
    plain = [F.cross_entropy(module.net(x), y).item() for x, y in data]
    assert module.losses["val"][-4:] == pytest.approx(plain)
    for evaluate in (run.validate, run.test):
        assert evaluate(module, data, verbose=False)[0]["val_loss"] == pytest.approx(sum(plain) / 4)


def test_stages_say_where_the_loss_is_replaced(evaluated, trainer, data, by_hand, assert_same_weights):
    module, run = evaluated(), trainer(callbacks=[PolyLossOverride(2.0, stages=["val", "test"])])
    run.fit(module, data, data)
    plain = evaluated()
    trainer().fit(plain, data, data)
    assert_same_weights(module, plain)
    poly = [by_hand(module.net(x), y).item() for x, y in data]
    assert module.losses["val"][-4:] == pytest.approx(poly)
    assert run.test(module, data, verbose=False)[0]["val_loss"] == pytest.approx(sum(poly) / 4)


@pytest.mark.condition("PolyLossOverride", "no loss call", refused="nothing would be replaced")
def test_a_run_that_replaces_nothing_ends_after_its_first_batch(foreign, trained, by_hand):
    module = foreign(by_hand)
    with pytest.raises(LossOverrideError, match="No loss was replaced"):
        trained(module, callbacks=[PolyLossOverride(2.0)])
    assert len(module.losses["train"]) == 1
    with pytest.warns(UserWarning, match="No loss was replaced"):
        trained(module, callbacks=[PolyLossOverride(2.0, on_nothing="warn")])


def test_a_loss_of_this_package_in_the_module_has_its_own_epsilon_once(foreign, trained, by_hand, assert_same_weights):
    with pytest.raises(LossOverrideError, match="No loss was replaced"):
        trained(foreign(Poly1CrossEntropyLoss(2.0)), callbacks=[PolyLossOverride(5.0)])
    module = foreign(Poly1CrossEntropyLoss(2.0))
    with pytest.warns(UserWarning, match="No loss was replaced"):
        trained(module, callbacks=[PolyLossOverride(5.0, on_nothing="warn")])
    assert_same_weights(module, trained(foreign(by_hand)))


@pytest.mark.condition("PolyLossOverride", "several of a kind")
def test_of_nested_overrides_the_last_acts(foreign, trained, by_hand, assert_same_weights):
    overrides = [PolyLossOverride(5.0, name="outer", on_nothing="warn"), PolyLossOverride(2.0)]
    with pytest.warns(UserWarning, match="No loss was replaced"):
        module = trained(foreign(), callbacks=overrides)
    assert_same_weights(module, trained(foreign(by_hand)))


def test_overrides_of_different_scopes_share_a_module(foreign, trained, by_hand, assert_same_weights):
    class Two(foreign):
        def __init__(self, epsilons=None):
            super().__init__()
            losses = [partial(by_hand, epsilon=epsilon) for epsilon in epsilons or ()]
            self.first, self.second = losses or (nn.CrossEntropyLoss(), nn.CrossEntropyLoss())

        def training_step(self, batch, batch_idx):
            logits = self.net(batch[0])
            return self.first(logits, batch[1]) + 2 * self.second(logits, batch[1])

    first, second = (PolyLossOverride(e, scope=[part], name=part) for part, e in [("first", 2.0), ("second", -1.0)])
    module = trained(Two(), callbacks=[first, second])
    assert_same_weights(module, trained(Two((2.0, -1.0))))


@pytest.mark.condition(
    "PolyLossOverride", "several of a kind without different names", refused="the names tell them apart in logs"
)
def test_overrides_of_the_same_name_are_refused(foreign, trained):
    class Configured(foreign):
        def configure_callbacks(self):
            return [PolyLossOverride(1.0), PolyLossOverride(2.0)]

    with pytest.raises(ValueError, match="need a `name` each"):
        trained(Configured())
    with pytest.raises(ValueError, match="need a `name` each"):
        trained(foreign(), callbacks=[PolyLossOverride(1.0, name="a"), PolyLossOverride(2.0, name="a")])


def test_a_scope_that_names_nothing_is_an_error_before_any_step(foreign, trained):
    module = foreign()
    with pytest.raises(ValueError, match="'roi_heads' matches no module of Foreign: it has 'criterion', 'net'"):
        trained(module, callbacks=[PolyLossOverride(scope=["roi_heads"])])
    assert module.losses["train"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": []}, "at least one"),
        ({"stages": ["predict"]}, "predict"),
        ({"stages": "train"}, "sequence of strings"),
        ({"losses": ["mse_loss"]}, "mse_loss"),
        ({"elementwise": "yes"}, "elementwise"),
        ({"on_nothing": "yes"}, "on_nothing"),
        ({"epsilon": float("nan")}, "finite"),
        ({"scope": "net"}, "list of module paths"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        PolyLossOverride(**arguments)


@pytest.mark.condition("PolyLossOverride", "focal loss that computes Pt from the loss", refused="its Pt would be wrong")
def test_a_focal_loss_over_the_mean_is_refused_before_anything_is_trained(foreign, trained):
    def focal(logits, target):
        logpt = -F.cross_entropy(logits, target)
        return -((1 - logpt.detach().exp()) ** 2) * logpt

    module = foreign(focal)
    before = module.net.weight.clone()
    with pytest.raises(LossOverrideError, match=r"test_fit.py:\d+ calls exp .*LossProvider"):
        trained(module, callbacks=[PolyLossOverride(2.0)])
    assert module.net.weight.equal(before)


def test_a_perplexity_that_is_returned_and_logged_is_no_fault(foreign, trained, by_hand, assert_same_weights):
    class WithPerplexity(foreign):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("perplexity", loss.exp())
            return {"loss": loss, "perplexity": loss.detach().exp()}

    module = trained(WithPerplexity(), callbacks=[PolyLossOverride(2.0)])
    assert_same_weights(module, trained(foreign(by_hand)))


def test_a_focal_loss_in_a_stage_without_gradients_is_refused(evaluated, trainer, data):
    class Focal(evaluated):
        def test_step(self, batch, batch_idx):
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            return (1 - (-loss).exp()) ** 2 * loss

    with pytest.raises(LossOverrideError, match="calls exp"):
        trainer(callbacks=[PolyLossOverride(2.0, stages=["test"])]).test(Focal(), data, verbose=False)
