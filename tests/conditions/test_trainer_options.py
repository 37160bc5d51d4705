"""Every part of the package, in one run of one process, under the options and callbacks of a Trainer."""

import copy

import pytest
import pytorch_lightning
import torch.nn.functional as F
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import SingleDeviceStrategy

from polyloss_lightning import EpsilonScheduler, LossProvider, PolyLossOverride, PolynomialTermMonitor
from polyloss_lightning.schedules import ConstantSchedule, LinearSchedule

PARTS = ("LossProvider", "PolynomialTermMonitor", "EpsilonScheduler", "PolyLossOverride")


def case(name, callbacks=list, **options):
    return pytest.param(callbacks, options, id=name, marks=pytest.mark.condition(PARTS, name))


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


@pytest.mark.condition(PARTS, "fast_dev_run")
def test_fast_dev_run_has_no_schedule_to_follow(run, trainer):
    module = run.Validated()
    trainer(callbacks=run.parts(), fast_dev_run=2).fit(module)
    for call in module.calls:
        expected = run.by_hand(call.logits, call.target, call.epsilon)
        assert call.ours == pytest.approx(expected)
        assert call.replaced == pytest.approx(
            run.by_hand(call.logits, call.target, call.epsilon * (call.stage == "train"))
        )


@pytest.mark.condition(PARTS, "gradient accumulation that changes")
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


@pytest.mark.condition(PARTS, "several of a kind")
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


@pytest.mark.condition(PARTS, "both namespaces")
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
@pytest.mark.condition(PARTS, "DeepSpeed", read=True)
def test_a_strategy_that_accumulates_as_deepspeed_does(run, fit):
    class Accumulating(SingleDeviceStrategy):
        handles_gradient_accumulation = True

    strategy = Accumulating(device="cpu")
    _, fitted = fit(run.Everything(batches=5), strategy=strategy, accelerator="auto", accumulate_grad_batches=2)
    assert fitted.global_step == 4
