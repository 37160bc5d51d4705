"""Everything torch does to a function or a module: torch.func, torch.compile, torch.export, fake tensors."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from polyloss_lightning import Poly1CrossEntropyLoss, poly1_cross_entropy

# torch compiles its decompositions for forward mode with its own deprecated function.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.* is deprecated:FutureWarning")

CLASSES = 4
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
OPTIONS = [
    {},
    {"weight": WEIGHT},
    {"label_smoothing": 0.1},
    {"weight": WEIGHT, "label_smoothing": 0.1, "num_terms": 3},
]
with_options = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
with_targets = pytest.mark.parametrize("soft", [False, True], ids=["index", "soft"])


def batch(soft, n=6):
    input = torch.randn(n, CLASSES, dtype=torch.float64)
    if soft:
        return input, torch.randn(n, CLASSES, dtype=torch.float64).softmax(1)
    return input, torch.randint(CLASSES, (n,)).index_fill(0, torch.tensor([0]), -100)


@with_options
@with_targets
class TestFunc:
    def test_vmap_is_a_loop(self, options, soft):
        input, target = batch(soft)

        def loss(row, label):
            return poly1_cross_entropy(row, label, 2.0, reduction="sum", **options)

        looped = torch.stack([loss(row, label) for row, label in zip(input, target, strict=True)])
        torch.testing.assert_close(torch.vmap(loss)(input, target), looped)
        shared = torch.vmap(loss, in_dims=(0, None))(input, target[1])
        torch.testing.assert_close(shared, torch.stack([loss(row, target[1]) for row in input]))

    def test_gradients_of_single_samples(self, options, soft):
        input, target = batch(soft)

        def loss(row, label):
            return poly1_cross_entropy(row, label, 2.0, reduction="sum", **options)

        each = torch.vmap(torch.func.grad(loss))(input, target)
        input.requires_grad_()
        (expected,) = torch.autograd.grad(poly1_cross_entropy(input, target, 2.0, reduction="sum", **options), input)
        torch.testing.assert_close(each, expected)

    def test_jvp_is_the_gradient_times_the_tangent(self, options, soft):
        input, target = batch(soft)
        tangent = torch.randn_like(input)

        def loss(input):
            return poly1_cross_entropy(input, target, (2.0, -0.5), **options)

        _, forward = torch.func.jvp(loss, (input,), (tangent,))
        torch.testing.assert_close(forward, (torch.func.grad(loss)(input) * tangent).sum())

    def test_hessian_is_that_of_reverse_over_reverse(self, options, soft):
        input, target = batch(soft, n=3)

        def loss(input):
            return poly1_cross_entropy(input, target, 2.0, **options)

        expected = torch.autograd.functional.hessian(loss, input)
        torch.testing.assert_close(torch.func.hessian(loss)(input), expected)


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
    @with_targets
    @pytest.mark.parametrize("num_terms", [None, 3])
    def test_moving_epsilon_needs_two_graphs(self, soft, num_terms):
        loss, counter = Poly1CrossEntropyLoss(0.5, num_terms=num_terms), CountingBackend()
        run = compiled(loss, backend=counter)
        input, target = batch(soft)
        for epsilon in (0.5, -1.0, 0.0, 1.0, 2.0, 3.3, 4.7):
            loss.epsilon = epsilon
            assert_compiled_equals_eager(run, loss, input, target)
        assert counter.graphs <= 2

    def test_moving_epsilon_of_the_function_needs_two_graphs(self):
        counter = CountingBackend()
        run = compiled(poly1_cross_entropy, backend=counter)
        input, target = batch(soft=False)
        for epsilon in (0.5, -1.0, 0.0, 1.0, 2.0, 3.3, 4.7):
            torch.testing.assert_close(run(input, target, epsilon), poly1_cross_entropy(input, target, epsilon))
        assert counter.graphs <= 2

    @pytest.mark.parametrize("options", [{}, OPTIONS[-1]])
    @with_targets
    def test_forward_and_backward_through_aot_autograd(self, options, soft):
        loss = Poly1CrossEntropyLoss((1.0, -0.5), **options)
        assert_compiled_equals_eager(compiled(loss, backend="aot_eager"), loss, *batch(soft))

    @pytest.mark.parametrize("reduction", ["none", "sum"])
    def test_dynamic_batch(self, reduction):
        loss, counter = Poly1CrossEntropyLoss(reduction=reduction, label_smoothing=0.1), CountingBackend()
        run = compiled(loss, backend=counter, dynamic=True)
        for n in (3, 5, 8):
            assert_compiled_equals_eager(run, loss, *batch(soft=False, n=n))
        assert counter.graphs == 1

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo looks at it
    def test_observed_loss_still_trains(self):
        loss, seen = Poly1CrossEntropyLoss(), []
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


@pytest.mark.parametrize("options", [{}, OPTIONS[-1]])
@with_targets
def test_export_with_a_dynamic_batch(options, soft):
    loss = Poly1CrossEntropyLoss(2.0, **options)
    n = torch.export.Dim("n", min=2)
    program = torch.export.export(loss, batch(soft), dynamic_shapes=({0: n}, {0: n}), strict=True)
    for size in (2, 9):
        input, target = batch(soft, n=size)
        torch.testing.assert_close(program.module()(input, target), loss(input, target))


@with_options
@with_targets
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_fake_tensors_have_the_shape_and_dtype_of_the_loss(options, soft, reduction):
    loss = Poly1CrossEntropyLoss(reduction=reduction, **options)
    input, target = batch(soft)
    real = loss(input, target)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = loss(mode.from_tensor(input), mode.from_tensor(target))
    assert (fake.shape, fake.dtype) == (real.shape, real.dtype)


@with_options
@with_targets
def test_meta_tensors_have_the_shape_and_dtype_of_the_loss(options, soft):
    loss = Poly1CrossEntropyLoss(reduction="none", **options)
    input, target = batch(soft)
    real = loss(input, target)
    result = loss.to("meta")(input.to("meta"), target.to("meta"))
    assert result.is_meta
    assert (result.shape, result.dtype) == (real.shape, real.dtype)


def test_epsilon_zero_under_vmap_is_torch_under_vmap():
    input, target = torch.randn(3, 5, CLASSES), torch.randint(CLASSES, (3, 5))
    ours = torch.vmap(lambda input, target: poly1_cross_entropy(input, target, 0.0))(input, target)
    torch.testing.assert_close(ours, torch.vmap(F.cross_entropy)(input, target))
