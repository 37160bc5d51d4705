"""Nothing of an override is left, however a run ends."""

import copy
import pickle
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import _get_current_function_mode_stack

from polyloss_lightning import PolyLossOverride
from polyloss_lightning.callbacks.trainer.step_wrapper import unwrap_step, wrap_step

STEPS = ("training_step", "backward", "validation_step", "test_step")


def assert_undone(run, module):
    assert _get_current_function_mode_stack() == []
    assert not set(STEPS) & set(vars(run.strategy))
    assert not set(STEPS) & set(vars(module))
    x, y = torch.randn(2, 3), torch.tensor([0, 1])
    assert F.cross_entropy(x, y).item() == pytest.approx(-x.log_softmax(1)[[0, 1], [0, 1]].mean().item())


def test_after_a_fit_a_validation_and_a_test(evaluated, trainer, data):
    module, run = evaluated(), trainer(callbacks=[PolyLossOverride(2.0)])
    for stage in (
        partial(run.fit, module, data, data),
        partial(run.validate, module, data),
        partial(run.test, module, data),
    ):
        stage()
        assert_undone(run, module)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("hook", ["training_step", "on_train_batch_start", "backward", "on_train_epoch_end"])
@pytest.mark.condition("PolyLossOverride", "exceptions in hooks")
def test_after_an_exception(foreign, trainer, data, error, hook):
    def fail(*args, **kwargs):
        raise error

    module, run = type("Failing", (foreign,), {hook: fail})(), trainer(callbacks=[PolyLossOverride(2.0)])
    # Lightning ends the process on an interrupt.
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        run.fit(module, data)
    assert_undone(run, module)


@pytest.mark.condition("PolyLossOverride", "skipped batches")
def test_after_skipped_batches(foreign, trainer, trained, data, by_hand, assert_same_weights):
    class Skipping(foreign):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    module, run = Skipping(), trainer(callbacks=[PolyLossOverride(2.0)])
    run.fit(module, data)
    assert_undone(run, module)
    assert_same_weights(module, trained(Skipping(by_hand)))


@pytest.mark.condition("PolyLossOverride", "Trainer used again")
def test_a_second_fit_is_as_good_as_the_first(foreign, trainer, trained, data, by_hand, assert_same_weights):
    modules = foreign(), foreign()
    for module, callbacks in zip(modules, ([PolyLossOverride(2.0)], []), strict=True):
        run = trainer(callbacks=callbacks, max_epochs=1)
        if not callbacks:
            module.criterion = None
            del module.criterion
            module.criterion = by_hand
        run.fit(module, data)
        run.fit_loop.max_epochs = 2
        run.fit(module, data)
        assert_undone(run, module)
    assert_same_weights(*modules)


def test_a_fit_after_one_that_failed_is_as_good(foreign, trainer, trained, data, by_hand, assert_same_weights):
    override = PolyLossOverride(2.0)
    with pytest.raises(ZeroDivisionError):
        trainer(callbacks=[override]).fit(foreign(lambda logits, target: 1 / 0), data)
    module = trained(foreign(), callbacks=[override])
    assert_same_weights(module, trained(foreign(by_hand)))


@pytest.mark.condition("PolyLossOverride", "copy and pickle")
def test_the_module_can_be_copied_and_pickled_while_it_trains_and_keeps_its_keys(trained, foreign, data, by_hand):
    class Copies(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            self.copies = (copy.deepcopy(module), torch.nn.Sequential(copy.copy(module)))
            self.keys = list(module.state_dict())

    copies, module = Copies(), foreign()
    keys, names = list(module.state_dict()), set(vars(module))
    trained(module, callbacks=[PolyLossOverride(2.0), copies])
    assert copies.keys == keys == list(module.state_dict())
    assert set(vars(module)) - names == {"_hparams"}  # Lightning's own
    copied = copies.copies[0]
    torch.testing.assert_close(copied.state_dict(), module.state_dict())
    x, y = next(iter(data))
    copied.log = lambda *args: None
    torch.testing.assert_close(copied.training_step((x, y), 0), by_hand(module.net(x), y, epsilon=0.0))


def test_the_callback_can_be_copied_and_pickled(foreign, trained, by_hand, assert_same_weights):
    override = PolyLossOverride(2.0, scope=["criterion"], elementwise="apply")
    for again in (copy.deepcopy(override), pickle.loads(pickle.dumps(override))):
        assert_same_weights(trained(foreign(), callbacks=[again]), trained(foreign(by_hand)))


class Strategy:
    """What stands in for a strategy of Lightning, and its method with what runs around it."""

    def training_step(self):
        return "step"


class Note:
    def __init__(self, notes, name):
        self.notes, self.name = notes, name

    def __call__(self):
        return self

    def __enter__(self):
        self.notes.append(self.name)

    def __exit__(self, *args):
        self.notes.append(self.name.upper())


def test_a_wrapped_step_runs_what_is_around_it_in_order_and_is_undone_in_any_order():
    strategy, notes = Strategy(), []
    around = [Note(notes, name) for name in "abc"]
    for one in around:
        wrap_step(strategy, "training_step", one)
    assert strategy.training_step() == "step"
    assert notes == list("abcCBA")
    for one in (around[1], around[0]):
        unwrap_step(strategy, "training_step", one)
    notes.clear()
    assert strategy.training_step() == "step"
    assert notes == list("cC")
    unwrap_step(strategy, "training_step", around[2])
    unwrap_step(strategy, "training_step", around[2])
    assert vars(strategy) == {}


def test_what_somebody_else_had_put_in_the_place_of_the_step_comes_back():
    strategy = Strategy()
    strategy.training_step = theirs = lambda: "theirs"
    around = Note([], "a")
    wrap_step(strategy, "training_step", around)
    assert strategy.training_step() == "theirs"
    unwrap_step(strategy, "training_step", around)
    assert strategy.training_step is theirs
