"""Right in every way in which Lightning trains a module."""

import pytest
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from polyloss_lightning import PolyLossOverride
from polyloss_lightning.interception import LossOverrideError


@pytest.fixture
def compare(foreign, trained, by_hand, assert_same_weights):
    """Fits ``module_class`` with an override, and with the loss written by hand; the weights must be the same."""

    def check(module_class=foreign, callbacks=list, **options):
        module = trained(module_class(), callbacks=[PolyLossOverride(2.0), *callbacks()], **options)
        expected = trained(module_class(by_hand), callbacks=callbacks(), **options)
        assert_same_weights(module, expected)
        plain = trained(module_class(nn.CrossEntropyLoss()), callbacks=callbacks(), **options)
        assert not torch.equal(module.net.weight, plain.net.weight)
        return module, expected

    return check


@pytest.mark.condition("PolyLossOverride", "gradient accumulation")
def test_accumulation(compare):
    compare(accumulate_grad_batches=2)


@pytest.mark.condition("PolyLossOverride", "manual optimization")
def test_manual_optimization_with_two_optimizers(compare, foreign):
    class Manual(foreign):
        def __init__(self, criterion=None):
            super().__init__(criterion)
            self.automatic_optimization = False
            self.second = nn.Linear(4, 3)

        def training_step(self, batch, batch_idx):
            for optimizer, net in zip(self.optimizers(), (self.net, self.second), strict=True):
                optimizer.zero_grad()
                self.manual_backward(self.criterion(net(batch[0]), batch[1]))
                optimizer.step()

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), 0.5), torch.optim.Adam(self.second.parameters(), 0.1)

    module, expected = compare(Manual)
    torch.testing.assert_close(module.second.state_dict(), expected.second.state_dict())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.condition("PolyLossOverride", "precision: mixed and true half")
def test_precision(compare, foreign, precision):
    dtypes = []

    class Typed(foreign):
        def training_step(self, batch, batch_idx):
            loss = self.criterion(self.net(batch[0]), batch[1])
            dtypes.append(loss.dtype)
            return loss.to(self.net.weight.dtype)

    compare(Typed, precision=precision)
    # By the override first: the dtype that torch's own loss has.
    assert dtypes[0] == {"bf16-mixed": torch.float32, "bf16-true": torch.bfloat16, "64-true": torch.float64}[precision]


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
@pytest.mark.condition("PolyLossOverride", "stochastic weight averaging")
def test_stochastic_weight_averaging(compare):
    compare(callbacks=lambda: [StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1)], max_epochs=3)


@pytest.mark.condition("PolyLossOverride", "weight averaging (EMA)")
def test_exponential_moving_average_of_the_weights(compare):
    compare(callbacks=lambda: [EMAWeightAveraging(decay=0.5)])


@pytest.mark.condition("PolyLossOverride", "LBFGS")
def test_lbfgs_which_runs_a_step_several_times(compare, foreign):
    class Quasi(foreign):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    compare(Quasi, precision="64-true")  # it divides by differences of gradients


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.condition("PolyLossOverride", "learning-rate finder")
def test_the_learning_rate_finder_sees_the_replaced_loss(trained, foreign, by_hand, tmp_path):
    class Tuned(foreign):
        def __init__(self, criterion=None):
            super().__init__(criterion)
            self.lr = 0.1

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    found = []
    runs = {"override": (Tuned(), [PolyLossOverride(2.0, scope=["criterion"])]), "by hand": (Tuned(by_hand), [])}
    for name, (module, overrides) in runs.items():
        finder = LearningRateFinder(num_training_steps=4, attr_name="lr")
        # The finder cannot suggest a rate from so few steps; what counts is what it saw.
        finder.lr_find = lambda *args, run=LearningRateFinder.lr_find, self=finder: run(self, *args)
        trained(module, callbacks=[finder, *overrides], enable_checkpointing=True, default_root_dir=tmp_path / name)
        found.append(finder.optimal_lr.results["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.condition("PolyLossOverride", "fast_dev_run")
def test_fast_dev_run(compare):
    compare(fast_dev_run=True)


@pytest.mark.condition("PolyLossOverride", "barebones")
def test_barebones(compare, foreign):
    class Unlogged(foreign):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.net(batch[0]), batch[1])

    compare(Unlogged, barebones=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("part", ["module", "submodule", "criterion"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.condition("PolyLossOverride", "torch.compile")
def test_torch_compile(foreign, trained, by_hand, assert_same_weights, part, backend):
    torch.compiler.reset()

    class Compiled(foreign):
        def __init__(self):
            super().__init__()
            if part == "criterion":
                self.criterion = torch.compile(self.criterion, backend=backend)
            if part == "submodule":
                self.net.compile(backend=backend)
            self.losses["seen"] = []

        def training_step(self, batch, batch_idx):
            return self.criterion(self.net(batch[0]), batch[1])

    module = Compiled()
    fitted = torch.compile(module, backend=backend) if part == "module" else module
    override = PolyLossOverride(2.0)
    trained(fitted, callbacks=[override])
    assert_same_weights(module, trained(foreign(by_hand)))
    torch.compiler.reset()


@pytest.mark.condition("PolyLossOverride", "activation checkpointing")
def test_activation_checkpointing(compare, foreign):
    class Checkpointed(foreign):
        def training_step(self, batch, batch_idx):
            def loss(x):
                return self.criterion(self.net(x), batch[1])

            return checkpoint(loss, batch[0], use_reentrant=False)

    compare(Checkpointed)


@pytest.mark.condition(
    "PolyLossOverride", "reentrant activation checkpointing", refused="the recomputed loss would keep the old gradient"
)
def test_a_loss_in_reentrant_activation_checkpointing_is_refused(foreign, trained):
    class Checkpointed(foreign):
        def training_step(self, batch, batch_idx):
            logits = self.net(batch[0])
            return checkpoint(self.criterion, logits, batch[1], use_reentrant=True)

    with pytest.raises(LossOverrideError, match="use_reentrant=False"):
        trained(Checkpointed(), callbacks=[PolyLossOverride(2.0)])
