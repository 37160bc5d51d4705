"""Every part of the package, in one run, under what a Trainer and a module can do in one process."""

import copy
import os
import signal
from functools import partial

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, IterableDataset

from polyloss_lightning import (
    EpsilonScheduler,
    LossProvider,
    Poly1CrossEntropyLoss,
    PolyLossOverride,
    PolynomialTermMonitor,
    PolynomialTerms,
    override_losses,
)
from polyloss_lightning.schedules import ConstantSchedule, LinearSchedule

PARTS = ("LossProvider", "PolynomialTermMonitor", "EpsilonScheduler", "PolyLossOverride")


def for_every_part(name, parts=PARTS, **reason):
    """Mark a test as one of ``parts`` under the condition ``name``."""

    def mark(function):
        for part in parts:
            function = pytest.mark.condition(part, name, **reason)(function)
        return function

    return mark


def case(name, callbacks=list, **options):
    marks = [pytest.mark.condition(part, name) for part in PARTS]
    return pytest.param(callbacks, options, id=name, marks=marks)


@pytest.mark.filterwarnings("ignore:.*overfit|.*checkpoint", "ignore:.*batch size", "ignore:Anomaly Detection")
@pytest.mark.filterwarnings("ignore:Swapping scheduler", "ignore:You requested to overfit")
@pytest.mark.parametrize(
    ("callbacks", "options"),
    [
        case("gradient accumulation", accumulate_grad_batches=3),
        case("gradient clipping", gradient_clip_val=0.1),
        case("precision: mixed and true half", precision="bf16-mixed", rel=2e-2),
        case("precision: mixed and true half", precision="bf16-true", rel=2e-2),
        case("precision: float64", precision="64-true"),
        case("detect_anomaly", detect_anomaly=True),
        case("weight averaging (EMA)", lambda: [EMAWeightAveraging(decay=0.5)]),
        case(
            "stochastic weight averaging",
            lambda: [StochasticWeightAveraging(0.1, swa_epoch_start=1)],
            weights_only=False,  # up to torch 2.6 the state of its scheduler contains a function
        ),
        case("Timer", lambda: [Timer("00:01:00:00")]),
        case(
            "learning-rate finder",
            lambda: [LearningRateFinder(num_training_steps=3, early_stop_threshold=None)],
            enable_checkpointing=True,
        ),
        case(
            "batch size finder",
            lambda: [BatchSizeFinder(mode="binsearch", init_val=2, max_trials=1, steps_per_trial=1)],
            enable_checkpointing=True,
        ),
        case("overfit_batches", overfit_batches=3),
        case("limit_train_batches", limit_train_batches=0.5),
        case("min_epochs and max_steps", max_epochs=-1, max_steps=6),
        case("CSVLogger", logger=True, log_every_n_steps=2),
        case("no logger"),
        case("barebones", barebones=True),
    ],
)
def test_trainer_option(run, fit, trainer, tmp_path, callbacks, options):
    if "logger" in options:
        options = {**options, "logger": CSVLogger(tmp_path)}
    if "barebones" in options:
        options |= dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"))
    module = run.Everything()
    calls = module.calls
    module.on_train_start = calls.clear  # what a finder trained does not count
    fit(module, callbacks(), **options)


@for_every_part("fast_dev_run")
def test_fast_dev_run_has_no_schedule_to_follow(run, trainer):
    module = run.Validated()
    trainer(callbacks=run.parts(), fast_dev_run=2).fit(module)
    for call in module.calls:
        expected = run.by_hand(call.logits, call.target, call.epsilon)
        assert call.ours == pytest.approx(expected)
        assert call.replaced == pytest.approx(
            run.by_hand(call.logits, call.target, call.epsilon * (call.stage == "train"))
        )


@for_every_part("gradient accumulation that changes", PARTS)
def test_a_scheduler_of_the_accumulation_needs_the_length(run, trainer):
    module = run.Everything()
    total = 4 + 2
    ours = [EpsilonScheduler(LinearSchedule(-1.0, 2.0), total=total), *run.parts()[1:]]
    fitted = trainer(callbacks=[*ours, GradientAccumulationScheduler({0: 1, 1: 2})])
    fitted.fit(module)
    assert fitted.global_step == total
    run.check_calls(module.calls, total)
    run.check_sums(module.calls[-4:], fitted.callback_metrics)
    with pytest.raises(ValueError, match=r"pass EpsilonScheduler\(total=\.\.\.\)"):
        trainer(callbacks=[*run.parts(), GradientAccumulationScheduler({0: 1, 1: 2})]).fit(run.Everything())


@for_every_part("manual optimization")
def test_manual_optimization(run, fit):
    class Manual(run.Everything):
        automatic_optimization = False
        batches = 0

        def position(self):
            return self.batches

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.batches += 1
            for _ in range(2):  # two optimizer steps in one step
                self.optimizers().zero_grad()
                self.manual_backward(loss, retain_graph=True)
                self.optimizers().step()

    fit(Manual(), total=8)


@for_every_part("LBFGS")
def test_lbfgs_which_runs_a_step_several_times(run, trainer):
    class Quasi(run.Everything):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)

    module = Quasi()
    fitted = trainer(callbacks=run.parts(), precision="64-true")
    fitted.fit(module)
    run.check_calls(module.calls, fitted.global_step)
    last_of_each = {call.step: call for call in module.calls if call.epoch == 1}
    assert len(module.calls) > 8
    run.check_sums(list(last_of_each.values()), fitted.callback_metrics)


@for_every_part("torch.compile")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled(run, fit):
    torch.compiler.reset()
    module = run.Everything()
    module.net.compile(backend="eager")
    module.loss_fn.compile(backend="eager")
    fit(module)
    torch.compiler.reset()


@for_every_part("activation checkpointing")
def test_activation_checkpointing(run, fit):
    class Checkpointed(run.Everything):
        def training_step(self, batch, batch_idx):
            before = len(self.calls)
            loss = checkpoint(partial(self.both_losses, stage="train"), batch, use_reentrant=False)
            self.kept = self.calls[: before + 1]
            return loss

        def on_train_batch_end(self, *args):
            self.calls = self.kept  # without what was computed again in the backward pass

    fit(Checkpointed())


@for_every_part("iterable data set")
@pytest.mark.parametrize(
    ("batches", "options"),
    [(4, {"max_epochs": 2, "limit_train_batches": 4}), (None, {"max_epochs": -1, "max_steps": 6})],
)
def test_iterable_and_endless_data(run, fit, batches, options):
    class Stream(IterableDataset):
        def __iter__(self):
            count = 0
            while batches is None or count < batches:
                yield torch.randn(4, 4), torch.randint(3, (4,))
                count += 1

    class Streaming(run.Everything):
        def train_dataloader(self):
            return DataLoader(Stream(), batch_size=None)

    fit(Streaming(), **options)


@for_every_part("several loaders")
def test_several_loaders(run, fit):
    class Several(run.Validated):
        def train_dataloader(self):
            return {name: super(Several, self).train_dataloader() for name in "ab"}

        def val_dataloader(self):
            return [super(Several, self).train_dataloader() for _ in range(2)]

        def training_step(self, batch, batch_idx):
            return self.both_losses(batch["a"], "train") + self.both_losses(batch["b"], "train")

        def validation_step(self, batch, batch_idx, dataloader_idx):
            return self.both_losses(batch, "val" if not self.trainer.sanity_checking else "sanity")

    module, fitted = fit(Several())
    run.check_sums([call for call in module.calls if call.stage == "val"][-8:], fitted.callback_metrics, "val")


@for_every_part("validation and test")
@for_every_part("sanity check")
@for_every_part("stages alone")
def test_validation_sanity_check_and_stages_alone(run, fit):
    module, fitted = fit(run.Validated())
    assert sum(call.stage == "sanity" for call in module.calls) == 2
    run.check_sums([call for call in module.calls if call.stage == "val"][-4:], fitted.callback_metrics, "val")
    for stage in ("validate", "test"):
        module.calls.clear()
        getattr(fitted, stage)(module, verbose=False)
        run.check_sums(module.calls, fitted.callback_metrics, {"validate": "val"}.get(stage, stage))
        assert {call.epsilon for call in module.calls} == {2.0}
        assert module.calls[0].replaced == pytest.approx(run.by_hand(*module.calls[0][4:6], 0.0))


@for_every_part("several of a kind")
def test_two_losses_two_overrides_two_schedulers_two_monitors(run, trainer):
    class Two(run.Everything):
        def __init__(self):
            super().__init__()
            self.second = copy.deepcopy(self.loss_fn)

        def training_step(self, batch, batch_idx):
            loss = self.both_losses(batch, "train")
            logits = self.net(batch[0])
            self.others = (
                float(self.second(logits, batch[1]).detach()),
                float(F.binary_cross_entropy_with_logits(logits, F.one_hot(batch[1], 3).float()).detach()),
            )
            self.logits, self.target = logits.detach().double(), batch[1]
            return loss

    overrides = [
        PolyLossOverride(losses=["cross_entropy"], name="a"),
        PolyLossOverride(losses=["binary_cross_entropy_with_logits"], name="b", on_nothing="warn"),
    ]
    schedulers = [
        EpsilonScheduler(LinearSchedule(-1.0, 2.0), loss=["loss_fn", "a"]),
        EpsilonScheduler(ConstantSchedule(5.0), loss=["second", "b"]),
    ]
    monitors = [PolynomialTermMonitor(losses=["loss_fn"]), PolynomialTermMonitor(losses=["a.cross_entropy"])]
    module = Two()
    fitted = trainer(callbacks=[*overrides, *schedulers, *monitors])
    fitted.fit(module)
    run.check_calls(module.calls, fitted.global_step)
    p = module.logits.sigmoid().where(F.one_hot(module.target, 3).bool(), 1 - module.logits.sigmoid())
    binary = float((-p.log() + 5 * (1 - p)).mean())
    assert module.others == pytest.approx((run.by_hand(module.logits, module.target, 5.0), binary), rel=1e-5)
    metrics = fitted.callback_metrics
    expected = sum(run.by_hand(call.logits, call.target, 0.0) for call in module.calls[-4:]) / 4
    names = [name for name in metrics if name.endswith("base_loss") and name.startswith("train/")]
    assert sorted(names) == ["train/poly/a.cross_entropy/base_loss", "train/poly/loss_fn/base_loss"]
    assert [float(metrics[name]) for name in names] == pytest.approx([expected] * 2)


@for_every_part("resume in the middle of an epoch")
@for_every_part("resume at the end of an epoch")
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


@for_every_part("Trainer used again")
@for_every_part("callback used again")
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


@for_every_part("exceptions in hooks")
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


@for_every_part("signals in hooks")
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


@for_every_part("both namespaces")
def test_the_trainer_of_the_other_name_of_lightning(run, trainer):
    class Other(run.EveryPart, LossProvider, pytorch_lightning.LightningModule):
        pass

    module = Other()
    fitted = trainer(pytorch_lightning.Trainer, callbacks=run.parts())
    fitted.fit(module)
    run.check_calls(module.calls, 8)
    run.check_sums(module.calls[-4:], fitted.callback_metrics)


# Read in lightning 2.6: its steps and backward passes go through the methods of the strategy that an override wraps,
# and it accumulates gradients over the end of an epoch.
@for_every_part("DeepSpeed", read=True)
def test_a_strategy_that_accumulates_as_deepspeed_does(run, fit):
    class Accumulating(SingleDeviceStrategy):
        handles_gradient_accumulation = True

    strategy = Accumulating(device="cpu")
    _, fitted = fit(run.Everything(batches=5), strategy=strategy, accelerator="auto", accumulate_grad_batches=2)
    assert fitted.global_step == 4


@for_every_part("Fabric", ["LossProvider", "PolyLossOverride"])
def test_fabric(run):
    class Plain(LossProvider, nn.Module):
        pass

    fabric = Fabric(accelerator="cpu", devices=1)
    net = nn.Linear(4, 3)
    module, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), 0.1))
    provider = Plain()
    x, target = torch.randn(8, 4), torch.arange(8) % 3
    with override_losses(epsilon=2.0):
        logits = module(x)
        ours, replaced = provider.compute_loss(logits, target), F.cross_entropy(logits, target)
        fabric.backward(ours + replaced)
    optimizer.step()
    for loss, epsilon in ((ours, 1.0), (replaced, 2.0)):
        assert float(loss.detach()) == pytest.approx(run.by_hand(logits.detach(), target, epsilon))


NO_FABRIC = "Fabric has no callbacks: `loss.epsilon` and `loss.register_observer` are for its loops"


@for_every_part("Fabric", ["PolynomialTermMonitor", "EpsilonScheduler"], refused=NO_FABRIC)
def test_in_a_loop_of_ones_own_epsilon_is_set_and_terms_are_observed():
    loss, metric = Poly1CrossEntropyLoss(), PolynomialTerms()
    loss.epsilon = LinearSchedule(-1.0, 2.0)(1.0)
    with loss.register_observer(metric.update):
        value = loss(torch.randn(8, 3), torch.arange(8) % 3)
    assert float(metric.compute()["loss"]) == pytest.approx(float(value))
