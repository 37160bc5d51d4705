"""The linear loss with what torch and this package do with a loss: derivatives, graphs, observers, training."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import polyloss_lightning as poly

FEATURES, CLASSES = 12, 50


def test_the_observation_adds_up_to_the_loss(operands):
    input, linear_weight, target, linear_bias = operands()
    loss, seen = poly.Poly1LinearCrossEntropyLoss(2.0, weight=torch.linspace(0, 2, CLASSES)), []
    with loss.register_observer(seen.append):
        value = loss(input, linear_weight, target, linear_bias)
    (observation,) = seen
    total = observation.weight * (-observation.log_p + 2.0 * (1 - observation.log_p.exp()))
    torch.testing.assert_close(total.sum() / observation.denominator, value.detach())
    assert torch.equal(observation.target, target.where(target != -100, 0))
    assert not observation.log_p.requires_grad


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="new in torch 2.14")
def test_an_override_adds_no_second_epsilon(operands):
    input, linear_weight, target, _ = operands()
    expected = poly.poly1_linear_cross_entropy(input, linear_weight, target, epsilon=2.0)
    with poly.override_losses(epsilon=5.0):
        F.linear_cross_entropy(input, linear_weight, target)  # an override that replaces nothing is an error
        value = poly.poly1_linear_cross_entropy(input, linear_weight, target, epsilon=2.0)
    assert torch.equal(value, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script.* is deprecated:FutureWarning")
def test_transforms_of_torch_func_get_their_derivatives(formula, reduced, operands):
    input, linear_weight, target, _ = operands()
    input, linear_weight = input.detach(), linear_weight.detach()

    def loss(input):
        return poly.poly1_linear_cross_entropy(input, linear_weight, target, epsilon=2.0)

    expected = torch.autograd.functional.jacobian(
        lambda input: reduced(*formula(input, linear_weight, target, epsilon=[2.0]), "mean"), input
    )
    torch.testing.assert_close(torch.func.grad(loss)(input), expected, rtol=1e-4, atol=1e-6)
    direction = torch.randn_like(input)
    _, tangent = torch.func.jvp(loss, (input,), (direction,))
    torch.testing.assert_close(tangent.double(), (expected * direction).double().sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="before 2.7, compiled code holds all logits")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo looks at it
def test_compiled_code_leaves_the_graph_for_the_loss(operands, assert_same):
    given = operands()
    loss, frames = poly.Poly1LinearCrossEntropyLoss(2.0), []

    def step(input, linear_weight, target, linear_bias):
        return loss(input * 2, linear_weight, target, linear_bias) * 3

    def backend(graph, example_inputs):
        frames.extend(node.name for node in graph.graph.nodes if node.op in ("call_function", "call_method"))
        return graph

    value = torch.compile(step, backend=backend)(*given)
    assert_same(value, step(*given).double(), (*given[:2], given[3]))
    assert len(frames) == 2  # the products before and after the loss


def test_it_can_be_exported(operands):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(FEATURES, CLASSES)
            self.loss_fn = poly.Poly1LinearCrossEntropyLoss(2.0)

        def forward(self, input, target):
            return self.loss_fn(input, self.head.weight, target, self.head.bias)

    head, (input, _, target, _) = Head(), operands()
    exported = torch.export.export(head, (input.detach(), target)).module()
    torch.testing.assert_close(exported(input.detach(), target), head(input, target).detach())


def test_a_subclass_with_entries_of_its_own(formula, reduced, operands):
    class Tempered(poly.Poly1LinearCrossEntropyLoss):
        def entries(self, input, linear_weight, target, linear_bias=None):
            return super().entries(input / 4, linear_weight, target, linear_bias)

    input, linear_weight, target, _ = operands()
    expected = reduced(*formula(input / 4, linear_weight, target, epsilon=[2.0]), "mean")
    value = Tempered(2.0)(input, linear_weight, target)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_mixin_passes_the_weight_on(formula, operands):
    from lightning.pytorch import LightningModule

    class Head(poly.LossProvider, LightningModule):
        def __init__(self):
            super().__init__(loss_fn=poly.Poly1LinearCrossEntropyLoss(2.0))
            self.head = nn.Linear(FEATURES, CLASSES)

        def training_step(self, batch, batch_idx):
            input, target = batch
            return self.compute_loss(input, self.head.weight, target, linear_bias=self.head.bias)

    module, (input, _, target, _) = Head(), operands()
    expected, _ = formula(input, module.head.weight, target, module.head.bias, epsilon=[2.0])
    value = module.training_step((input, target), 0)
    torch.testing.assert_close(value.double(), expected.sum() / (target != -100).sum(), rtol=1e-5, atol=1e-5)


def test_yaml_scheduler_and_monitor(formula, operands, tmp_path, monkeypatch):
    from lightning.pytorch import LightningModule
    from lightning.pytorch.cli import LightningCLI
    from torch.utils.data import DataLoader, TensorDataset

    class Head(poly.LossProvider, LightningModule):
        def __init__(self, loss_fn: nn.Module | None = None):
            super().__init__(loss_fn=loss_fn)
            self.head = nn.Linear(FEATURES, CLASSES)

        def training_step(self, batch, batch_idx):
            input, target = batch
            return self.compute_loss(input, self.head.weight, target, linear_bias=self.head.bias)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

        def train_dataloader(self):
            torch.manual_seed(1)  # the same samples in every call
            input, _, target, _ = operands()
            return DataLoader(TensorDataset(input.detach(), target), batch_size=20)

    config = tmp_path / "linear.yaml"
    config.write_text("""
seed_everything: 0
model:
  loss_fn:
    class_path: polyloss_lightning.losses.Poly1LinearCrossEntropyLoss
trainer:
  accelerator: cpu
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: polyloss_lightning.callbacks.EpsilonScheduler
      init_args:
        schedule:
          class_path: polyloss_lightning.schedules.LinearSchedule
          init_args: {init_value: -1.0, end_value: 2.0}
    - class_path: polyloss_lightning.callbacks.PolynomialTermMonitor
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app", "fit", "--config", str(config)])
    cli = LightningCLI(Head, save_config_callback=None)
    module, metrics = cli.model, cli.trainer.callback_metrics
    batches = list(module.train_dataloader())
    total = weight = 0.0
    for (input, target), epsilon in zip(batches, (-1.0, 2.0), strict=True):
        numerator, counts = formula(input, module.head.weight, target, module.head.bias, epsilon=[epsilon])
        total, weight = total + numerator.sum(), weight + counts.sum()
    assert module.loss_fn.epsilon == 2.0
    assert float(metrics["train/poly/loss"]) == pytest.approx(float((total / weight).detach()), rel=1e-5)


def test_entries_of_an_instance_are_the_loss(operands):
    input, linear_weight, target, linear_bias = operands()
    loss = poly.Poly1LinearCrossEntropyLoss(2.0)
    entries = loss.entries
    loss.entries = lambda *layer: entries(*layer)._replace(weight=torch.zeros(()))
    assert loss(input, linear_weight, target, linear_bias) == 0


def test_a_weight_of_the_function_must_be_a_tensor(operands):
    input, linear_weight, target, _ = operands()
    with pytest.raises(TypeError, match=r"`weight` must be a tensor or None, got \[1.0\]"):
        poly.poly1_linear_cross_entropy(input, linear_weight, target, weight=[1.0])
