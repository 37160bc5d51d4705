import copy
import pickle

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from polyloss_lightning.callbacks import EpsilonScheduler, PolynomialTermMonitor
from polyloss_lightning.callbacks.loss_override import PolyLossOverride
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.schedules import LinearSchedule

NAMES = {"term_1", "term_2", "term_3", "tail", "loss", "base_loss", "correction", "first_term_share", "pt"}


@pytest.fixture
def fit(observed, make_trainer):
    def run(monitor=None, module=None, callbacks=(), **options):
        module = module or observed()
        monitor = monitor or PolynomialTermMonitor()
        trainer = make_trainer(callbacks=[monitor, *callbacks], **{"max_epochs": 1, **options})
        trainer.fit(module)
        return trainer, module

    return run


def logged(trainer, start):
    return {
        name.removeprefix(start): float(v) for name, v in trainer.callback_metrics.items() if name.startswith(start)
    }


def listeners(module):
    return [m for m in module.modules() if getattr(m, "_observers", None)]


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}])
def test_epoch_values_are_exact_over_the_epoch(fit, loss_of, options):
    trainer, module = fit(**options)
    for stage in ("train", "val"):
        values = logged(trainer, f"{stage}/poly/")
        assert {name for name in values if not name.endswith("_step")} == NAMES
        assert values["loss"] == pytest.approx(loss_of(module.calls[stage]), rel=1e-5)
        assert values["base_loss"] == pytest.approx(loss_of(module.calls[stage], epsilon=0.0), rel=1e-5)
        terms = sum(value for name, value in values.items() if name.startswith("term_") and not name.endswith("_step"))
        assert terms + values["tail"] == pytest.approx(values["loss"], rel=1e-6)


@pytest.mark.condition("PolynomialTermMonitor", "sanity check")
def test_every_epoch_begins_anew_and_the_sanity_check_leaves_no_trace(fit, loss_of):
    trainer, module = fit(max_epochs=3, num_sanity_val_steps=2)
    assert len(module.calls["sanity"]) == 2
    for stage in ("train", "val"):
        assert logged(trainer, f"{stage}/poly/")["loss"] == pytest.approx(loss_of(module.calls[stage][-5:]), rel=1e-5)


@pytest.mark.condition("PolynomialTermMonitor", "validation in the middle of an epoch")
def test_validation_in_mid_epoch_keeps_the_training_sums(fit, loss_of):
    trainer, module = fit(val_check_interval=2)
    assert len(module.calls["val"]) == 10
    assert logged(trainer, "train/poly/")["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)
    assert logged(trainer, "val/poly/")["loss"] == pytest.approx(loss_of(module.calls["val"][-5:]), rel=1e-5)


@pytest.mark.parametrize("stage", ["val", "test"])
@pytest.mark.condition("PolynomialTermMonitor", "validation and test")
def test_evaluation_alone_is_logged_and_leaves_no_listener(observed, make_trainer, loss_of, stage):
    module = observed()
    trainer = make_trainer(callbacks=[PolynomialTermMonitor()])
    (values,) = getattr(trainer, {"val": "validate", "test": "test"}[stage])(module, verbose=False)
    assert set(values) == {f"{stage}/poly/{name}" for name in NAMES}
    assert values[f"{stage}/poly/loss"] == pytest.approx(loss_of(module.calls[stage]), rel=1e-5)
    assert not listeners(module)
    trainer.fit_loop.max_epochs = 1  # what was made under inference_mode must not disturb a later fit
    trainer.fit(module)


def test_step_values_are_those_of_the_batch_every_log_every_n_steps(fit, loss_of):
    class Steps(pl.Callback):
        def __init__(self):
            self.seen = {}

        def on_train_batch_end(self, trainer, *args):
            self.seen[trainer.global_step] = logged(trainer, "train/poly/").get("loss_step")

    steps = Steps()
    _, module = fit(callbacks=[steps], log_every_n_steps=2)
    batch = {step: pytest.approx(loss_of([module.calls["train"][step - 1]]), rel=1e-5) for step in (2, 4)}
    assert steps.seen == {1: None, 2: batch[2], 3: batch[2], 4: batch[4], 5: batch[4]}


def test_only_the_stages_and_terms_that_are_asked_for(fit):
    trainer, _ = fit(PolynomialTermMonitor(1, stages=["val"]))
    assert set(logged(trainer, "val/poly/")) == NAMES - {"term_2", "term_3"}
    assert not logged(trainer, "train/")


def test_several_losses_have_a_path_each(fit, observed):
    class Two(observed):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([Poly1CrossEntropyLoss(0.0), Poly1CrossEntropyLoss([1.0, 0.5])])

        def training_step(self, batch, batch_idx):
            logits = self.net(batch[0])
            return super().training_step(batch, batch_idx) + sum(head(logits, batch[1]) for head in self.heads)

    trainer, _ = fit(module=Two())
    for path in ("loss_fn", "heads.0", "heads.1"):
        assert set(logged(trainer, f"train/poly/{path}/")) >= NAMES
    assert "val/poly/heads.0/loss" not in trainer.callback_metrics  # not called there: no value, and not a NaN
    assert logged(trainer, "poly/") == {
        "loss_fn/epsilon": 1.0,
        "heads.0/epsilon": 0.0,
        "heads.1/epsilon_1": 1.0,
        "heads.1/epsilon_2": 0.5,
    }
    trainer, _ = fit(PolynomialTermMonitor(losses=["heads.0"]), module=Two())
    assert set(logged(trainer, "train/poly/")) >= NAMES


@pytest.mark.parametrize("every", [1, 50])
def test_epsilon_is_logged_beside_a_scheduler_too(fit, tmp_path, every):
    scheduler = EpsilonScheduler(LinearSchedule(-1.0, 2.0))
    trainer, _ = fit(callbacks=[scheduler], log_every_n_steps=every, logger=CSVLogger(tmp_path))
    assert logged(trainer, "poly/") == {"epsilon": 2.0}


def test_an_override_with_a_schedule_is_monitored(fit, observed):
    class Plain(observed):
        def __init__(self):
            super().__init__(loss_fn=nn.CrossEntropyLoss())

    monitor = PolynomialTermMonitor(losses=["cross_entropy"])
    callbacks = [PolyLossOverride(), EpsilonScheduler(LinearSchedule(-1.0, 2.0))]
    trainer, _ = fit(monitor, Plain(), callbacks, log_every_n_steps=1)
    values = logged(trainer, "train/poly/")
    assert set(values) >= NAMES
    assert values["loss"] == pytest.approx(values["base_loss"] + values["correction"])
    assert values["correction"] != 0
    assert logged(trainer, "poly/")["epsilon"] == 2.0


@pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_train_epoch_end"])
def test_a_loss_that_is_replaced_on_the_way_is_observed(fit, observed, loss_of, hook):
    def replace():
        module.loss_fn = Poly1CrossEntropyLoss(3.0)

    module = observed()
    setattr(module, hook, replace)
    trainer, _ = fit(module=module, max_epochs=2)
    expected = loss_of(module.calls["train"][-5:], 3.0, (1.0, 1.0, 1.0))
    assert logged(trainer, "train/poly/")["loss"] == pytest.approx(expected, rel=1e-5)
    assert not listeners(module)


def test_a_loss_that_is_added_in_mid_epoch_counts_from_the_next_epoch_on(fit, observed, loss_of):
    class Adding(observed):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if self.global_step == 1:
                self.added = Poly1CrossEntropyLoss(0.5)
            return loss + self.added(self.net(batch[0]), batch[1]) if self.global_step else loss

    trainer, module = fit(module=Adding(), val_check_interval=2, max_epochs=2)
    calls = module.calls["train"][-5:]
    assert logged(trainer, "train/poly/loss_fn/")["loss"] == pytest.approx(loss_of(calls), rel=1e-5)
    expected = loss_of(calls, 0.5, (1.0, 1.0, 1.0))
    assert logged(trainer, "train/poly/added/")["loss"] == pytest.approx(expected, rel=1e-5)
    trainer, _ = fit(module=Adding(), val_check_interval=2, max_epochs=1)
    assert not logged(trainer, "train/poly/added/")


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at it
@pytest.mark.condition("PolynomialTermMonitor", "torch.compile")
def test_a_compiled_module_is_observed_under_its_own_paths(fit, observed, loss_of):
    module = observed()
    module.loss_fn = torch.compile(module.loss_fn, backend="eager")
    trainer, module = fit(PolynomialTermMonitor(losses=["loss_fn"]), module=module)
    assert logged(trainer, "train/poly/")["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)


@pytest.mark.condition("PolynomialTermMonitor", "no loss call", refused="there is nothing to observe")
def test_a_module_without_a_loss_is_an_error(fit, observed):
    class Plain(observed):
        def __init__(self):
            super().__init__(loss_fn=nn.CrossEntropyLoss())

    with pytest.raises(ValueError, match="Plain has no loss of polyloss_lightning"):
        fit(module=Plain())


@pytest.mark.parametrize("options", [{"fast_dev_run": True}, {"max_steps": 3}, {"limit_val_batches": 0}])
@pytest.mark.condition("PolynomialTermMonitor", "fast_dev_run")
def test_short_ways_to_run_are_logged_too(fit, loss_of, options):
    trainer, module = fit(**options)
    assert not listeners(module)
    assert logged(trainer, "train/poly/")["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)


@pytest.mark.condition("PolynomialTermMonitor", "barebones")
def test_a_barebones_trainer_runs_without_it(fit):
    unset = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"])
    trainer, module = fit(barebones=True, **unset)
    assert not trainer.callback_metrics
    assert not listeners(module)


@pytest.mark.condition("PolynomialTermMonitor", "learning-rate finder")
def test_the_learning_rate_finder_leaves_no_trace(fit, observed, loss_of):
    class WithRate(observed):
        lr = 0.1

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    finder = LearningRateFinder(num_training_steps=3, early_stop_threshold=None)
    trainer, module = fit(module=WithRate(), callbacks=[finder], enable_checkpointing=True)
    assert len(module.calls["train"]) > 5
    assert logged(trainer, "train/poly/")["loss"] == pytest.approx(loss_of(module.calls["train"][-5:]), rel=1e-5)


def test_prog_bar_shows_the_chosen_names(fit):
    trainer, _ = fit(PolynomialTermMonitor(prog_bar=["pt"]), log_every_n_steps=1)
    shown = {name for name in trainer.progress_bar_metrics if "poly" in name}
    assert shown == {"train/poly/pt", "train/poly/pt_step", "val/poly/pt"}


@pytest.mark.condition("PolynomialTermMonitor", "copy and pickle")
def test_it_can_be_copied_and_pickled_before_and_after_a_run(fit):
    monitor = PolynomialTermMonitor(per_class=True)
    for _ in range(2):
        for twin in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
            assert twin.state_key == monitor.state_key
            assert "train/poly/loss" in fit(twin)[0].callback_metrics
        fit(monitor)


@pytest.mark.condition("PolynomialTermMonitor", "exceptions in hooks")
def test_an_exception_leaves_no_listener(observed, make_trainer):
    class Fails(observed):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            raise RuntimeError("no")

    module, monitor = Fails(), PolynomialTermMonitor()
    with pytest.raises(RuntimeError, match="no"):
        make_trainer(callbacks=[monitor], max_epochs=1).fit(module)
    assert not listeners(module)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_terms": 0}, ValueError),
        ({"stages": ["fit"]}, ValueError),
        ({"stages": "train"}, TypeError),
        ({"prog_bar": ["term_4"]}, ValueError),
        ({"losses": [1]}, TypeError),
        ({"num_classes": 1}, ValueError),
    ],
)
def test_impossible_options_are_refused(options, error):
    with pytest.raises(error, match=f"`{next(iter(options))}`"):
        PolynomialTermMonitor(**options)


def test_a_path_that_is_not_there_is_refused(fit):
    with pytest.raises(ValueError, match=r"`losses` must be among \['loss_fn'\]"):
        fit(PolynomialTermMonitor(losses=["loss"]))
