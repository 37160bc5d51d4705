"""Poly-1 cross-entropy of a linear layer, against a float64 formula of its logits."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import polyloss_lightning as poly
from polyloss_lightning.core import linear_softmax

ROWS, FEATURES, CLASSES = 40, 12, 50


@pytest.fixture(autouse=True)
def _a_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(linear_softmax, "_FEW", 1)
    monkeypatch.setattr(linear_softmax, "_ROWS", 15)  # at most: three parts of 14, 14 and 12
    monkeypatch.setattr(linear_softmax, "_CACHE", 1)


def formula(input, linear_weight, target, linear_bias=None, *, epsilon, weight=None, smoothing=0.0, num_terms=None):
    """Numerator of each sample, and the weight that it adds to the denominator of the mean, in float64."""
    bias = 0 if linear_bias is None else linear_bias.double()
    log_p = (input.double() @ linear_weight.double().T + bias).log_softmax(-1)
    p, classes = log_p.exp(), log_p.shape[-1]
    series = -log_p
    if num_terms is not None:
        series = sum((1 - p) ** j / j for j in range(1, num_terms + 1))
    for j, value in enumerate(epsilon, start=1):
        series = series + value * (1 - p) ** j
    class_weight = torch.ones(classes, dtype=torch.float64) if weight is None else weight.double()
    if target.is_floating_point():
        share = target.double() * (1 - smoothing) + smoothing / classes
        return (share * class_weight * series).sum(-1), torch.ones(log_p.shape[:-1], dtype=torch.float64)
    counts = target != -100
    index = target.where(counts, 0).long()
    share = F.one_hot(index, classes).double() * (1 - smoothing) + smoothing / classes
    numerator = (share * class_weight * series).sum(-1)
    return numerator * counts, class_weight[index] * counts


def reduced(numerator, weight, reduction):
    if reduction == "none":
        return numerator
    return numerator.sum() / (weight.sum() if reduction == "mean" else 1)


def operands(bias=True, dtype=torch.float32):
    input, linear_weight, linear_bias = (
        torch.randn(ROWS, FEATURES),
        torch.randn(CLASSES, FEATURES),
        torch.randn(CLASSES),
    )
    target = torch.randint(CLASSES, (ROWS,))
    target[::7] = -100
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (input, linear_weight, linear_bias)]
    return leaves[0], leaves[1], target, (leaves[2] if bias else None)


def gradients(value, operands):
    leaves = [tensor for tensor in operands if tensor is not None and tensor.requires_grad]
    # Different factors for the samples, so that an error of one does not cancel that of another.
    factor = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view_as(value)
    return torch.autograd.grad((value * factor).sum(), leaves)


def assert_same(value, expected, operands):
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    for got, wanted in zip(gradients(value, operands), gradients(expected, operands), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


OPTIONS = {
    "poly1": {"epsilon": 2.0},
    "base": {"epsilon": 0.0},
    "minus_one": {"epsilon": -1.0},
    "polyn": {"epsilon": [1.0, -0.25, 0.5]},
    "num_terms": {"epsilon": [0.5], "num_terms": 3},
    "weight": {"epsilon": 1.0, "weight": torch.linspace(0, 2, CLASSES)},
    "smoothed": {"epsilon": 1.0, "label_smoothing": 0.2},
    "smoothed_weight": {"epsilon": 1.0, "label_smoothing": 0.2, "weight": torch.linspace(0, 2, CLASSES)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_gradients_are_those_of_the_formula(options, reduction, bias):
    given = operands(bias)
    input, linear_weight, target, linear_bias = given
    loss = poly.Poly1LinearCrossEntropyLoss(reduction=reduction, **options)
    function = poly.poly1_linear_cross_entropy(
        input, linear_weight, target, linear_bias=linear_bias, reduction=reduction, **options
    )
    value = loss(input, linear_weight, target, linear_bias)
    smoothing = options.get("label_smoothing", 0.0)
    rest = {name: option for name, option in options.items() if name in ("weight", "num_terms")}
    epsilon = options["epsilon"] if isinstance(options["epsilon"], list) else [options["epsilon"]]
    expected = reduced(*formula(*given, epsilon=epsilon, smoothing=smoothing, **rest), reduction)
    assert torch.equal(function, value)
    assert_same(value, expected, given)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_value_and_gradients_of_probabilities_are_those_of_the_formula(reduction, smoothing):
    input, linear_weight, _, linear_bias = given = operands()
    target, weight = torch.randn(ROWS, CLASSES).softmax(-1), torch.linspace(0, 2, CLASSES)
    loss = poly.Poly1LinearCrossEntropyLoss(2.0, reduction=reduction, label_smoothing=smoothing, weight=weight)
    value = loss(input, linear_weight, target, linear_bias)
    terms = formula(input, linear_weight, target, linear_bias, epsilon=[2.0], smoothing=smoothing, weight=weight)
    assert_same(value, reduced(*terms, reduction), given)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_single_sample(reduction):
    input, linear_weight, target, linear_bias = operands()
    value = poly.poly1_linear_cross_entropy(
        input[1], linear_weight, target[1], epsilon=2.0, linear_bias=linear_bias, reduction=reduction
    )
    expected, _ = formula(input[1], linear_weight, target[1], linear_bias, epsilon=[2.0])
    assert value.shape == ()
    assert_same(value, expected, (input, linear_weight, linear_bias))


def test_without_a_target_that_counts_the_mean_is_nan_as_in_torch():
    input, linear_weight, target, _ = operands()
    target = torch.full_like(target, -100)
    assert poly.poly1_linear_cross_entropy(input, linear_weight, target).isnan()
    assert poly.poly1_linear_cross_entropy(input, linear_weight, target, reduction="sum") == 0


def test_base_loss_is_that_of_torch():
    input, linear_weight, target, linear_bias = operands()
    weight = torch.linspace(0.5, 2, CLASSES)
    loss = poly.Poly1LinearCrossEntropyLoss(5.0, weight=weight)
    expected = F.cross_entropy(F.linear(input, linear_weight, linear_bias), target, weight)
    torch.testing.assert_close(loss.base_loss(input, linear_weight, target, linear_bias), expected)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision(autocast):
    given = operands(dtype=torch.float32 if autocast else torch.bfloat16)
    input, linear_weight, target, linear_bias = given
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = poly.Poly1LinearCrossEntropyLoss(2.0)(input, linear_weight, target, linear_bias)
        logits = F.linear(input, linear_weight, linear_bias)
        reference = F.cross_entropy(logits, target)
    assert value.dtype == reference.dtype
    expected = reduced(*formula(*given, epsilon=[2.0]), "mean")
    torch.testing.assert_close(value.double(), expected, rtol=2e-2, atol=0)
    for got, wanted in zip(gradients(value, given), gradients(expected, given), strict=True):
        assert got.dtype == wanted.dtype
        assert (got - wanted).float().norm() <= 0.03 * wanted.float().norm()


def test_the_observation_adds_up_to_the_loss():
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
def test_an_override_adds_no_second_epsilon():
    input, linear_weight, target, _ = operands()
    expected = poly.poly1_linear_cross_entropy(input, linear_weight, target, epsilon=2.0)
    with poly.override_losses(epsilon=5.0):
        F.linear_cross_entropy(input, linear_weight, target)  # an override that replaces nothing is an error
        value = poly.poly1_linear_cross_entropy(input, linear_weight, target, epsilon=2.0)
    assert torch.equal(value, expected)


def test_a_second_backward_gives_the_same_gradient():
    given = operands()
    value = poly.Poly1LinearCrossEntropyLoss(2.0)(*given[:3], given[3])
    first = torch.autograd.grad(value, given[0], retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(value, given[0])[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script.* is deprecated:FutureWarning")
def test_transforms_of_torch_func_get_their_derivatives():
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
def test_compiled_code_leaves_the_graph_for_the_loss():
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


def test_it_can_be_exported():
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


def test_a_subclass_with_entries_of_its_own():
    class Tempered(poly.Poly1LinearCrossEntropyLoss):
        def entries(self, input, linear_weight, target, linear_bias=None):
            return super().entries(input / 4, linear_weight, target, linear_bias)

    input, linear_weight, target, _ = operands()
    expected = reduced(*formula(input / 4, linear_weight, target, epsilon=[2.0]), "mean")
    value = Tempered(2.0)(input, linear_weight, target)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"input": torch.randn(4, 3)}, ValueError, r"`input` must have shape \(D\) or \(N, D\) with D = 12.*\(4, 3\)"),
        ({"input": torch.randn(2, 2, 12)}, ValueError, r"`input` must have shape.*\(2, 2, 12\)"),
        ({"target": torch.zeros(5, dtype=torch.long)}, ValueError, r"`target` must.*indices of shape \(4,\).*\(5,\)"),
        ({"target": torch.zeros(4, dtype=torch.int32)}, TypeError, "`target`.*torch.int64.*torch.int32"),
        ({"linear_bias": torch.zeros(3)}, ValueError, r"`linear_bias` must have shape \(50,\).*\(3,\)"),
        ({"weight": torch.ones(3)}, ValueError, r"`weight` must have shape \(50,\).*\(3,\)"),
        ({"reduction": "avg"}, ValueError, "`reduction`.*avg"),
        ({"label_smoothing": 2.0}, ValueError, "`label_smoothing`.*2.0"),
        ({"epsilon": "1"}, TypeError, "`epsilon`"),
    ],
)
def test_bad_arguments_are_errors(change, error, match):
    arguments = {
        "input": torch.randn(4, FEATURES),
        "linear_weight": torch.randn(CLASSES, FEATURES),
        "target": torch.zeros(4, dtype=torch.long),
    }
    with pytest.raises(error, match=match):
        poly.poly1_linear_cross_entropy(**{**arguments, **change})


def test_the_mixin_passes_the_weight_on():
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


def test_yaml_scheduler_and_monitor(tmp_path, monkeypatch):
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
