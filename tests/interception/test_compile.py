"""torch.compile of the code that calls a loss: right, with one graph break at the loss."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torchvision.ops import sigmoid_focal_loss

from polyloss_lightning import Poly1CrossEntropyLoss
from polyloss_lightning.interception import LossOverrideError, override_losses

# torch.compile itself looks at the gradient of each input
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
X, TARGET = torch.randn(8, 4), torch.randint(3, (8,))


class Model(nn.Module):
    def __init__(self, criterion=None):
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.criterion = criterion or nn.CrossEntropyLoss(label_smoothing=0.1)

    def forward(self, x, target):
        return self.criterion(self.net(x).relu(), target)


# Inductor of torch 2.6 has wrong gradients of cross_entropy(linear(x).relu()) on some CPUs, without an override too.
BACKENDS = ["eager", "aot_eager", *(["inductor"] if torch.__version__ >= (2, 7) else [])]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def whole(model, **options):
    return torch.compile(model, **options)


def submodule(model, **options):
    model.criterion = Model(model.criterion)
    model.criterion.net = nn.Identity()
    model.criterion = torch.compile(model.criterion, **options)
    return model


def criterion(model, **options):
    model.criterion = torch.compile(model.criterion, **options)
    return model


def step(model, x=X, target=TARGET):
    """Loss and gradients."""
    loss = model(x, target)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


@pytest.mark.parametrize("part", [whole, submodule, criterion])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_compiled_again_while_epsilon_moves(part, backend):
    model, plain, counts = Model(), Model(), []
    plain.load_state_dict(model.state_dict())
    counter = CompileCounterWithBackend(backend)
    compiled, override = part(model, backend=counter), override_losses()
    for epsilon in (-1.0, 0.3, 1.0, 2.5, 0.7, 1.5):
        override.epsilon = epsilon
        with override.intercepting():
            actual = step(compiled)
        with override_losses(epsilon):
            expected = step(plain)
        torch.testing.assert_close(actual, expected)
        counts.append(counter.frame_count)
    assert counts[3:] == counts[3:4] * 3
    (site,) = override.call_sites
    assert site.calls == 6
    assert (site.function, site.reduction, site.shape, site.replaced) == ("cross_entropy", "mean", (8, 3), True)
    assert site.location.startswith(__file__)
    # Out of the block the compiled module is what it was.
    torch.testing.assert_close(step(compiled), step(plain))


def test_code_that_runs_before_and_after_a_loss_is_compiled_at_most_once_for_each():
    counter, override, counts = CompileCounterWithBackend("eager"), override_losses(), []
    compiled = torch.compile(nn.Linear(4, 3), backend=counter)
    input, target = torch.randn(8, 4), torch.arange(8) % 3
    for _ in range(10):
        with override.intercepting():
            first = F.cross_entropy(compiled(input), target)
            (first + F.cross_entropy(compiled(-input), target)).backward()
        counts.append(counter.frame_count)
    assert counts[4:] == counts[-1:] * 6
    assert counts[-1] <= 2


@pytest.mark.skipif(torch.__version__ < (2, 7), reason="wrong gradients on some CPUs, without an override too")
@pytest.mark.condition("PolyLossOverride", "torch.compile with reduce-overhead")
def test_it_works_with_reduce_overhead():
    model = Model()
    compiled, override = torch.compile(model, mode="reduce-overhead"), override_losses(2.0)
    for _ in range(4):
        with override.intercepting():
            actual = step(compiled)
        with override_losses(2.0):
            torch.testing.assert_close(actual, step(model))


@pytest.mark.condition(
    "PolyLossOverride", "torch.compile with fullgraph", refused="the loss is replaced at a graph break"
)
def test_fullgraph_is_refused_by_name():
    compiled = torch.compile(Model(), backend="eager", fullgraph=True)
    reason = "compile this code without fullgraph=True" if torch.__version__ >= (2, 8) else "in_plain_python"
    with pytest.raises(Exception, match=reason), override_losses():
        compiled(X, TARGET)


def test_code_compiled_under_one_override_serves_the_next_and_tells_it_what_it_replaced():
    compiled, results = torch.compile(Model(), backend="eager"), []
    for _ in range(4):
        with override_losses(1.0) as override:
            results.append(compiled(X, TARGET))
        assert [site.replaced for site in override.call_sites] == [True]
    torch.testing.assert_close(results, results[:1] * 4)


class Mixed(nn.Module):
    """Some losses to replace, some to leave, in one function."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.poly = Poly1CrossEntropyLoss(3.0)

    def forward(self, x, target):
        logits, one_hot = self.net(x), F.one_hot(target, 3).float()
        binary = F.binary_cross_entropy_with_logits(logits, one_hot)
        focal = sigmoid_focal_loss(logits, one_hot, reduction="sum")
        elementwise = F.cross_entropy(logits, target, reduction="none").square().sum()
        return (
            binary + 2 * focal + 3 * elementwise + 4 * self.poly(logits, target) + 5 * F.cross_entropy(logits, target)
        )


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize(
    "losses", [None, ["cross_entropy"], ["binary_cross_entropy_with_logits"], ["sigmoid_focal_loss"]]
)
def test_each_loss_in_a_graph_is_treated_for_what_it_is(backend, losses):
    model = Mixed()
    compiled = torch.compile(model, backend=backend)
    override = override_losses(2.0, losses=losses, elementwise="skip")
    for _ in range(4):
        with override.intercepting():
            actual = step(compiled)
    with override_losses(2.0, losses=losses, elementwise="skip") as expected_override:
        expected = step(model)
    torch.testing.assert_close(actual, expected)

    def replaced(override):
        return {(site.function, site.replaced, site.reason) for site in override.call_sites}

    assert replaced(override) == replaced(expected_override)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_scope_is_right_in_compiled_code(backend):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Model(), Model()

        def forward(self, x, target):
            return self.first(x, target) + 2 * self.second(x, target)

    model = Two()
    for parts in (["first"], ["second"], ["*"]):
        compiled = torch.compile(model, backend=backend)
        with override_losses(2.0, scope=parts, module=model):
            actual = [step(compiled) for _ in range(2)]
        with override_losses(2.0, scope=parts, module=model):
            expected = step(model)
        torch.testing.assert_close(actual, [expected, expected])


def test_modules_that_share_compiled_code_keep_their_own_scope():
    model = nn.ModuleDict({"first": Model(), "second": Model()})
    model["second"].load_state_dict(model["first"].state_dict())
    for part in model.values():
        part.compile(backend="eager")
    with override_losses(2.0, scope=["second"], module=model):
        losses = [part(X, TARGET) for part in (*model.values(), *model.values())]
    assert losses[0] == losses[2] < losses[1] == losses[3]


def test_an_elementwise_loss_in_compiled_code_is_refused_by_default_with_its_place():
    model = torch.compile(Model(nn.CrossEntropyLoss(reduction="none")), backend="eager")
    with pytest.raises(LossOverrideError, match=r"test_compile.py:\d+ calls cross_entropy"), override_losses():
        model(X, TARGET)


def test_an_observed_loss_is_seen_from_compiled_code():
    model, seen = Model(), []
    compiled = torch.compile(model, backend="eager")
    with override_losses(2.0) as override:
        handle = override.observables()["cross_entropy"].register_observer(seen.append)
        for _ in range(2):
            actual = step(compiled)
        handle.remove()
        expected = step(compiled)
    assert len(seen) == 2
    torch.testing.assert_close(actual, expected)


def test_plain_python_between_two_graphs_costs_no_compilation_of_its_own():
    def run(x, target):
        x = x.cos()
        torch._dynamo.graph_break()
        for _ in range(3):
            x = x.sin() + torch.ones(3)
            torch._dynamo.graph_break()
        return F.cross_entropy(x, target)

    x, counts = torch.randn(8, 3, requires_grad=True), []
    for context in (override_losses(0.0, on_nothing="warn"), torch.enable_grad()):
        torch.compiler.reset()
        counter = CompileCounterWithBackend("eager")
        with context:
            torch.compile(run, backend=counter)(x, TARGET)
        counts.append(counter.frame_count)
    assert counts[0] == counts[1]
