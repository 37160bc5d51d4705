"""Everything torch does to a function or a module: torch.func, torch.compile, torch.export, fake tensors."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

import polyloss_lightning as poly

# torch compiles its decompositions for forward mode with its own deprecated function.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.* is deprecated:FutureWarning")

CLASSES = 4
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)


def index(n):
    return torch.randint(CLASSES, (n,)).index_fill(0, torch.tensor([0]), -100)


def soft(n):
    return torch.randn(n, CLASSES, dtype=torch.float64).softmax(1)


def multi_hot(n):
    return torch.rand(n, CLASSES, dtype=torch.float64).round().index_fill(0, torch.tensor([0]), -100)


CE = poly.Poly1CrossEntropyLoss
SMOOTHED = {"weight": WEIGHT, "label_smoothing": 0.1, "num_terms": 3}
FAMILY = {
    "cross_entropy": (CE, {}, index),
    "cross_entropy-weight": (CE, {"weight": WEIGHT}, index),
    "cross_entropy-smoothing": (CE, {"label_smoothing": 0.1}, index),
    "cross_entropy-smoothing-weight": (CE, SMOOTHED, index),
    "cross_entropy-soft": (CE, {}, soft),
    "cross_entropy-soft-weight": (CE, {"weight": WEIGHT}, soft),
    "cross_entropy-soft-smoothing": (CE, {"label_smoothing": 0.1}, soft),
    "cross_entropy-soft-smoothing-weight": (CE, SMOOTHED, soft),
    "focal": (poly.Poly1FocalLoss, {"gamma": 2.0}, index),
    "focal-fraction": (poly.Poly1FocalLoss, {"gamma": 0.5, "weight": WEIGHT, "label_smoothing": 0.1}, index),
    "focal-soft": (poly.Poly1FocalLoss, {"gamma": 1.5, "num_terms": 3}, soft),
    "binary": (poly.Poly1BCEWithLogitsLoss, {"pos_weight": WEIGHT}, multi_hot),
    "binary-soft": (poly.Poly1BCEWithLogitsLoss, {"weight": WEIGHT, "num_terms": 3}, soft),
    "sigmoid_focal": (poly.Poly1SigmoidFocalLoss, {}, multi_hot),
    "sigmoid_focal-fraction": (poly.Poly1SigmoidFocalLoss, {"gamma": 0.5, "weight": WEIGHT}, multi_hot),
    "sigmoid_focal-soft": (poly.Poly1SigmoidFocalLoss, {"gamma": 1.5, "alpha": -1, "num_terms": 3}, soft),
    "sigmoid_focal-index": (poly.Poly1SigmoidFocalLoss, {"target_format": "class_index"}, index),
    "sigmoid_focal-alpha": (poly.Poly1SigmoidFocalLoss, {"alpha": [0.1, 0.9, 0.0, 1.0]}, multi_hot),
}


def with_losses(*names):
    values = [FAMILY[name] for name in names]
    return pytest.mark.parametrize(("module", "options", "targets"), values, ids=names)


with_family = with_losses(*FAMILY)
# Tracing takes seconds: without the members whose options others have together.
TRACED = [name for name in FAMILY if not name.endswith(("entropy-weight", "-soft-weight", "-smoothing"))]


def batch(targets, n=5):
    return torch.randn(n, CLASSES, dtype=torch.float64), targets(n)


@with_family
class TestFunc:
    def test_vmap_is_a_loop(self, module, options, targets):
        loss, (input, target) = module(2.0, reduction="sum", **options), batch(targets)
        looped = torch.stack([loss(row, label) for row, label in zip(input, target, strict=True)])
        torch.testing.assert_close(torch.vmap(loss)(input, target), looped)
        shared = torch.vmap(loss, in_dims=(0, None))(input, target[1])
        torch.testing.assert_close(shared, torch.stack([loss(row, target[1]) for row in input]))

    def test_gradients_of_single_samples(self, module, options, targets):
        loss, (input, target) = module(2.0, reduction="sum", **options), batch(targets)
        each = torch.vmap(torch.func.grad(loss))(input, target)
        input.requires_grad_()
        torch.testing.assert_close(each, torch.autograd.grad(loss(input, target), input)[0])

    def test_jvp_is_the_gradient_times_the_tangent(self, module, options, targets):
        loss, (input, target) = module((2.0, -0.5), **options), batch(targets)
        tangent = torch.randn_like(input)
        _, forward = torch.func.jvp(lambda x: loss(x, target), (input,), (tangent,))
        expected = (torch.func.grad(lambda x: loss(x, target))(input) * tangent).sum()
        torch.testing.assert_close(forward, expected)

    def test_hessian_is_that_of_reverse_over_reverse(self, module, options, targets):
        loss, (input, target) = module(2.0, **options), batch(targets, n=2)
        expected = torch.autograd.functional.hessian(lambda x: loss(x, target), input)
        torch.testing.assert_close(torch.func.hessian(lambda x: loss(x, target))(input), expected)


class CountingBackend:
    """Runs what dynamo captured as it is, and counts the graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph_module, example_inputs):
        self.graphs += 1
        return graph_module.forward


def compiled(function, **options):
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, **options)


def assert_compiled_equals_eager(run, loss, input, target):
    results = []
    for function in (run, loss):
        leaf = input.clone().requires_grad_()
        result = function(leaf, target)
        results.append((result.detach(), *torch.autograd.grad(result.sum(), leaf)))
    torch.testing.assert_close(*results)


class TestCompile:
    @with_losses(*TRACED)
    def test_a_moving_epsilon_needs_two_graphs(self, module, options, targets):
        loss, counter = module(0.5, **options), CountingBackend()
        run = compiled(loss, backend=counter)
        for epsilon in (0.5, -1.0, 0.0, 1.0, 2.0, 3.3, 4.7):
            loss.epsilon = epsilon
            assert_compiled_equals_eager(run, loss, *batch(targets))
        assert counter.graphs <= 2

    @with_losses(*TRACED)
    def test_forward_and_backward_through_aot_autograd(self, module, options, targets):
        loss = module((1.0, -0.5), **options)
        assert_compiled_equals_eager(compiled(loss, backend="aot_eager"), loss, *batch(targets))

    @with_losses("cross_entropy-smoothing", "focal", "binary", "sigmoid_focal-alpha")
    def test_a_dynamic_batch_needs_one_graph(self, module, options, targets):
        loss, counter = module(reduction="none", **options), CountingBackend()
        run = compiled(loss, backend=counter, dynamic=True)
        for n in (3, 5, 8):
            assert_compiled_equals_eager(run, loss, *batch(targets, n))
        assert counter.graphs == 1


@pytest.mark.parametrize(
    ("function", "targets"),
    [
        (poly.poly1_cross_entropy, index),
        (poly.poly1_focal_loss, index),
        (poly.poly1_binary_cross_entropy_with_logits, multi_hot),
        (poly.poly1_sigmoid_focal_loss, multi_hot),
    ],
)
def test_a_moving_epsilon_of_the_function_needs_two_graphs(function, targets):
    counter, (input, target) = CountingBackend(), batch(targets)
    run = compiled(function, backend=counter)
    for epsilon in (0.5, -1.0, 0.0, 1.0, 2.0, 3.3, 4.7):
        torch.testing.assert_close(run(input, target, epsilon), function(input, target, epsilon))
    assert counter.graphs <= 2


@pytest.mark.parametrize(
    ("function", "targets"), [(poly.poly1_focal_loss, index), (poly.poly1_sigmoid_focal_loss, multi_hot)]
)
def test_a_moving_gamma_of_the_function_compiles(function, targets):
    input, target = batch(targets)
    run = compiled(function, backend="eager")
    for gamma in (2.0, 0.5, 1.5, 0.0, 1.0):
        torch.testing.assert_close(run(input, target, gamma=gamma), function(input, target, gamma=gamma))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo looks at it
def test_an_observed_loss_still_trains_where_it_is_compiled():
    loss, seen = CE(), []
    model = torch.nn.Linear(3, CLASSES).double()
    torch.compiler.reset()
    step = torch.compile(lambda x, y: loss(model(x), y), backend="aot_eager")  # a graph break is allowed
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randint(CLASSES, (8,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    with loss.register_observer(seen.append):
        for _ in range(5):
            optimizer.zero_grad()
            result = step(x, y)
            result.backward()
            optimizer.step()
            losses.append(result.item())
    assert losses[-1] < losses[0]
    assert len(seen) == 5
    assert not seen[0].log_p.requires_grad
    step(x, y)
    assert len(seen) == 5


@with_losses(*TRACED)
def test_export_with_a_dynamic_batch(module, options, targets):
    loss, n = module(2.0, **options), torch.export.Dim("n", min=2)
    program = torch.export.export(loss, batch(targets), dynamic_shapes=({0: n}, {0: n}), strict=True)
    for size in (2, 9):
        input, target = batch(targets, n=size)
        torch.testing.assert_close(program.module()(input, target), loss(input, target))


@with_family
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_fake_tensors_have_the_shape_and_dtype_of_the_loss(module, options, targets, reduction):
    loss, (input, target) = module(reduction=reduction, **options), batch(targets)
    real = loss(input, target)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = loss(mode.from_tensor(input), mode.from_tensor(target))
    assert (fake.shape, fake.dtype) == (real.shape, real.dtype)


def test_epsilon_zero_under_vmap_is_torch_under_vmap():
    input, target = torch.randn(3, 5, CLASSES), torch.randint(CLASSES, (3, 5))
    ours = torch.vmap(lambda input, target: poly.poly1_cross_entropy(input, target, 0.0))(input, target)
    torch.testing.assert_close(ours, torch.vmap(F.cross_entropy)(input, target))
