"""Every part of the package in runs that are resumed, repeated, or ended by an exception or a signal."""

import os
import signal
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from torch.overrides import _get_current_function_mode_stack

PARTS = ("LossProvider", "PolynomialTermMonitor", "EpsilonScheduler", "PolyLossOverride")


@pytest.mark.condition(PARTS, "resume in the middle of an epoch")
@pytest.mark.condition(PARTS, "resume at the end of an epoch")
@pytest.mark.parametrize("at", [7, 4])
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_a_resumed_run_goes_on(run, trainer, tmp_path, at):
    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == at:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole = run.Everything()
    fitted = trainer(callbacks=[*run.parts(), Saves()])
    fitted.fit(whole)
    resumed = run.Everything()
    again = trainer(callbacks=run.parts())
    again.fit(resumed, ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    run.check_calls(resumed.calls, 8)
    assert [call.step for call in resumed.calls] == list(range(at, 8))
    run.check_sums(whole.calls[4:at] + resumed.calls, again.callback_metrics)
    if at == 4:  # in the middle of an epoch, Lightning does not go back to the batch
        torch.testing.assert_close(resumed.net.state_dict(), whole.net.state_dict())


@pytest.mark.condition(PARTS, "Trainer used again")
@pytest.mark.condition(PARTS, "callback used again")
def test_a_trainer_and_its_callbacks_are_used_again(run, fit, trainer):
    ours = run.parts()
    fitted = trainer(callbacks=ours)
    for _ in range(2):
        module = run.Everything()
        fitted.fit(module)
        run.check_calls(module.calls, 8)
        run.check_sums(module.calls[-4:], fitted.callback_metrics)
        fitted.fit_loop.epoch_progress.reset()
        fitted.fit_loop.epoch_loop.automatic_optimization.optim_progress.reset()
        fitted.fit_loop.epoch_loop._batches_that_stepped = 0
    module = run.Everything()
    fitted = trainer(callbacks=ours)
    fitted.fit(module)
    run.check_calls(module.calls, 8)


HOOKS = [
    "setup",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "training_step",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "optimizer_step",
    "on_train_batch_end",
    "on_validation_epoch_start",
    "validation_step",
    "on_validation_epoch_end",
    "on_train_epoch_end",
    "on_save_checkpoint",
    "on_train_end",
    "on_fit_end",
    "teardown",
]


def send(number):
    """Send a signal to this process."""
    os.kill(os.getpid(), number)


@pytest.mark.condition(PARTS, "exceptions in hooks")
@pytest.mark.filterwarnings("ignore:.*was called without a model|.*no last checkpoint")
@pytest.mark.parametrize("hook", HOOKS)
def test_an_exception_in_a_hook_leaves_nothing_behind(run, trainer, hook):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    ours = run.parts()
    module = type("Failing", (run.Validated,), {hook: fail})()
    fitted = trainer(callbacks=[*ours], enable_checkpointing=hook == "on_save_checkpoint", num_sanity_val_steps=0)
    with pytest.raises(ZeroDivisionError):
        fitted.fit(module)
    assert_nothing_left(fitted, module)
    module = run.Validated()
    again = trainer(callbacks=ours)
    again.fit(module)  # the same callbacks, as if nothing had happened
    run.check_calls(module.calls, 8)


@pytest.mark.condition(PARTS, "signals in hooks")
@pytest.mark.filterwarnings("ignore:.*was called without a model|.*no last checkpoint|You're resuming from")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("hook", ["training_step", "on_train_batch_end", "validation_step"])
def test_a_signal_in_a_hook_leaves_nothing_behind_and_the_run_can_be_resumed(
    request, run, trainer, tmp_path, hook, number
):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
    request.addfinalizer(partial(signal.signal, signal.SIGINT, before))
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    class Interrupted(run.Validated):
        def interrupt(self):
            if self.trainer.global_step == 3 - (hook == "training_step") or hook == "validation_step":
                send(number)

    def interrupting(self, *args, **kwargs):
        self.interrupt()
        return getattr(super(Interrupted, self), hook)(*args, **kwargs)

    setattr(Interrupted, hook, interrupting)
    module = Interrupted()
    fitted = trainer(
        callbacks=[*run.parts(), OnExceptionCheckpoint(tmp_path)], num_sanity_val_steps=0, enable_checkpointing=True
    )
    try:
        with pytest.raises(BaseException) as ended:  # noqa: PT011 (SystemExit or SIGTERMException)
            fitted.fit(module)
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert ended.typename in ("SystemExit", "SIGTERMException")
    assert_nothing_left(fitted, module)
    resumed = run.Validated()
    again = trainer(callbacks=run.parts())
    again.fit(resumed, ckpt_path=tmp_path / "on_exception.ckpt", weights_only=True)
    run.check_calls(resumed.calls, 8)
    last = [call for call in module.calls + resumed.calls if call.stage == "train" and call.epoch == 1]
    run.check_sums(last, again.callback_metrics)


def assert_nothing_left(fitted, module):
    """Neither a mode, nor an observer, nor a wrapped method of the strategy."""
    assert _get_current_function_mode_stack() == []
    assert not {"training_step", "backward", "validation_step", "test_step"} & set(vars(fitted.strategy))
    assert not module.loss_fn._observers
