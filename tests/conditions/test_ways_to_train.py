"""Every part of the package, in one run of one process, in the ways in which a module trains and is given data."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, IterableDataset

from polyloss_lightning import LossProvider, Poly1CrossEntropyLoss, PolynomialTerms, override_losses
from polyloss_lightning.schedules import LinearSchedule

PARTS = ("LossProvider", "PolynomialTermMonitor", "EpsilonScheduler", "PolyLossOverride")


@pytest.mark.condition(PARTS, "manual optimization")
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


@pytest.mark.condition(PARTS, "LBFGS")
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


@pytest.mark.condition(PARTS, "torch.compile")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled(run, fit):
    torch.compiler.reset()
    module = run.Everything()
    module.net.compile(backend="eager")
    module.loss_fn.compile(backend="eager")
    fit(module)
    torch.compiler.reset()


@pytest.mark.condition(PARTS, "activation checkpointing")
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


@pytest.mark.condition(PARTS, "iterable data set")
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


@pytest.mark.condition(PARTS, "several loaders")
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


@pytest.mark.condition(PARTS, "validation and test")
@pytest.mark.condition(PARTS, "sanity check")
@pytest.mark.condition(PARTS, "stages alone")
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


@pytest.mark.condition(["LossProvider", "PolyLossOverride"], "Fabric")
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


@pytest.mark.condition(["PolynomialTermMonitor", "EpsilonScheduler"], "Fabric", refused=NO_FABRIC)
def test_in_a_loop_of_ones_own_epsilon_is_set_and_terms_are_observed():
    loss, metric = Poly1CrossEntropyLoss(), PolynomialTerms()
    loss.epsilon = LinearSchedule(-1.0, 2.0)(1.0)
    with loss.register_observer(metric.update):
        value = loss(torch.randn(8, 3), torch.arange(8) % 3)
    assert float(metric.compute()["loss"]) == pytest.approx(float(value))
