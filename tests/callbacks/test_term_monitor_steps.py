"""What counts within a step: once per batch, however often it runs."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from polyloss_lightning.callbacks import PolynomialTermMonitor


@pytest.fixture
def train(make_trainer):
    def run(module, callbacks=(), **options):
        trainer = make_trainer(callbacks=[PolynomialTermMonitor(), *callbacks], **{"max_epochs": 1, **options})
        trainer.fit(module)
        return {name.removeprefix("train/poly/"): float(value) for name, value in trainer.callback_metrics.items()}

    return run


@pytest.mark.condition("PolynomialTermMonitor", "LBFGS")
def test_a_closure_that_runs_again_replaces(train, observed, loss_of):
    class Quasi(observed):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=4)

    module = Quasi()
    values = train(module, log_every_n_steps=1)
    calls = module.calls["train"]
    assert len(calls) > 10
    last = [call for call, after in zip(calls, [*calls[1:], (None, None)], strict=True) if after[1] is not call[1]]
    assert len(last) == 5
    assert values["loss"] == pytest.approx(loss_of(last), rel=1e-5)
    assert values["loss_step"] == pytest.approx(loss_of(last[-1:]), rel=1e-5)


def test_several_calls_in_a_step_add(train, observed, loss_of):
    class Twice(observed):
        def training_step(self, batch, batch_idx):
            return self.step(batch, "train") + self.step([2 * batch[0], batch[1]], "train")

    module = Twice()
    assert train(module)["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)
    assert len(module.calls["train"]) == 10


@pytest.mark.condition("PolynomialTermMonitor", "manual optimization")
def test_manual_optimization_adds_what_comes_after_a_backward_pass(train, observed, loss_of):
    class Manual(observed):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for scale in (1, 2):
                self.optimizers().zero_grad()
                self.manual_backward(self.step([scale * batch[0], batch[1]], "train"))
                self.optimizers().step()

    module = Manual()
    assert train(module)["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)
    assert len(module.calls["train"]) == 10


@pytest.mark.condition("PolynomialTermMonitor", "skipped batches")
def test_a_skipped_batch_does_not_leak_into_the_next(train, observed, loss_of):
    class Skips(observed):
        def on_train_batch_start(self, batch, batch_idx):
            if self.current_epoch == 0 and batch_idx == 2:
                self.loss_fn(self.net(batch[0]), batch[1])  # evaluated, and then skipped with the rest of the epoch
                return -1
            return None

    module = Skips()
    assert train(module)["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)
    assert len(module.calls["train"]) == 2
    module = Skips()
    assert train(module, max_epochs=2)["loss"] == pytest.approx(loss_of(module.calls["train"][2:]), rel=1e-5)


def test_a_step_without_a_loss_is_no_mistake(train, observed, loss_of):
    class Sometimes(observed):
        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).sum() if batch_idx % 2 else self.step(batch, "train")

    module = Sometimes()
    assert train(module, log_every_n_steps=1)["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)


@pytest.mark.condition("PolynomialTermMonitor", "activation checkpointing")
def test_what_activation_checkpointing_evaluates_again_counts_once(train, observed, loss_of):
    class Recomputes(observed):
        def training_step(self, batch, batch_idx):
            other = self.step(batch, "train")
            return other + checkpoint(lambda x: self.step([x, batch[1]], "train"), batch[0], use_reentrant=False)

    module = Recomputes()
    values = train(module)
    assert len(module.calls["train"]) == 15
    calls = [module.calls["train"][i] for i in range(15) if i % 3 != 2]
    assert values["loss"] == pytest.approx(loss_of(calls), rel=1e-5)


def test_calls_outside_of_a_step_do_not_count(train, observed, loss_of):
    class Curious(observed):
        def look(self):
            self.loss_fn(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))

        on_train_epoch_start = on_train_epoch_end = on_train_start = look

        def on_train_batch_end(self, *args):
            self.look()

    module = Curious()
    assert train(module)["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*`dataloader_iter`")  # experimental in Lightning
def test_a_step_may_take_its_batches_from_the_iterator_of_the_loader(train, observed, loss_of):
    class Iterating(observed):
        def training_step(self, dataloader_iter):
            batch, _, batch_idx = next(dataloader_iter)
            return super().training_step(batch, batch_idx)

    module = Iterating()
    values = train(module, log_every_n_steps=1)
    assert values["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)
    assert values["loss_step"] == pytest.approx(loss_of(module.calls["train"][-1:]), rel=1e-5)


@pytest.mark.condition("PolynomialTermMonitor", "gradient accumulation")
def test_gradient_accumulation_counts_every_batch(train, observed, loss_of):
    module = observed()
    values = train(module, accumulate_grad_batches=3, log_every_n_steps=1)
    assert values["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)
    assert values["loss_step"] == pytest.approx(loss_of(module.calls["train"][-1:]), rel=1e-5)


class Looks(pl.Callback):
    """Evaluates the loss where others look at a step: once its gradients are there."""

    def __init__(self, where):
        setattr(self, where, self.look)

    def look(self, trainer, pl_module, *args):
        pl_module.loss_fn(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize("where", ["on_after_backward", "on_before_optimizer_step", "on_train_batch_end"])
def test_a_look_at_a_trained_step_does_not_count(train, observed, loss_of, where):
    module = observed()
    values = train(module, callbacks=[Looks(where)], log_every_n_steps=1)
    assert values["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)
    assert values["loss_step"] == pytest.approx(loss_of(module.calls["train"][-1:]), rel=1e-5)


def test_the_module_may_look_at_its_own_step(train, observed, loss_of):
    class Curious(observed):
        def on_before_optimizer_step(self, optimizer):
            self.loss_fn(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))

    module = Curious()
    assert train(module)["loss"] == pytest.approx(loss_of(module.calls["train"]), rel=1e-5)


@pytest.mark.condition("PolynomialTermMonitor", "sharpness-aware step")
def test_the_second_pass_of_a_sharpness_aware_step_replaces_the_first(train, observed, loss_of):
    class Sharpness(torch.optim.SGD):
        def step(self, closure):
            with torch.enable_grad():
                closure()
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.add_(parameter.grad, alpha=0.5)
            return super().step(closure)

    class Aware(observed):
        def configure_optimizers(self):
            return Sharpness(self.parameters(), lr=0.1)

    module = Aware()
    values = train(module)
    assert len(module.calls["train"]) == 10
    assert values["loss"] == pytest.approx(loss_of(module.calls["train"][1::2]), rel=1e-5)
