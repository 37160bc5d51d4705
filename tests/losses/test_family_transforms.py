"""Everything torch does to a function or module, for every loss of the family."""

import pytest
import torch

import polyloss_lightning as pl

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


FAMILY = {
    "focal": (pl.Poly1FocalLoss, {"gamma": 2.0}, index),
    "focal-fraction": (pl.Poly1FocalLoss, {"gamma": 0.5, "weight": WEIGHT, "label_smoothing": 0.1}, index),
    "focal-soft": (pl.Poly1FocalLoss, {"gamma": 1.5, "num_terms": 3}, soft),
    "binary": (pl.Poly1BCEWithLogitsLoss, {"pos_weight": WEIGHT}, multi_hot),
    "binary-soft": (pl.Poly1BCEWithLogitsLoss, {"weight": WEIGHT, "num_terms": 3}, soft),
    "sigmoid_focal": (pl.Poly1SigmoidFocalLoss, {}, multi_hot),
    "sigmoid_focal-fraction": (pl.Poly1SigmoidFocalLoss, {"gamma": 0.5, "weight": WEIGHT}, multi_hot),
    "sigmoid_focal-soft": (pl.Poly1SigmoidFocalLoss, {"gamma": 1.5, "alpha": -1, "num_terms": 3}, soft),
    "sigmoid_focal-index": (pl.Poly1SigmoidFocalLoss, {"target_format": "class_index"}, index),
}
with_family = pytest.mark.parametrize(("module", "options", "targets"), FAMILY.values(), ids=FAMILY)


def batch(targets, n=5):
    return torch.randn(n, CLASSES, dtype=torch.float64), targets(n)


@with_family
class TestFunc:
    def test_vmap_is_a_loop(self, module, options, targets):
        loss, (input, target) = module(2.0, reduction="sum", **options), batch(targets)
        looped = torch.stack([loss(row, label) for row, label in zip(input, target, strict=True)])
        torch.testing.assert_close(torch.vmap(loss)(input, target), looped)

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
    def __init__(self):
        self.graphs = 0

    def __call__(self, graph_module, example_inputs):
        self.graphs += 1
        return graph_module.forward


@with_family
def test_a_moving_epsilon_compiles_two_graphs_in_all(module, options, targets):
    torch.compiler.reset()
    counter = CountingBackend()
    loss, (input, target) = module(0.5, **options), batch(targets)
    run = torch.compile(loss, fullgraph=True, backend=counter)
    for epsilon in (0.5, -1.0, 0.0, 1.0, 2.0, 3.3, 4.7):
        loss.epsilon = epsilon
        torch.testing.assert_close(run(input, target), loss(input, target))
    assert counter.graphs <= 2


@with_family
def test_forward_and_backward_through_aot_autograd(module, options, targets):
    torch.compiler.reset()
    loss, (input, target) = module((1.0, -0.5), **options), batch(targets)
    results = []
    for run in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        leaf = input.clone().requires_grad_()
        value = run(leaf, target)
        results.append((value.detach(), *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(*results)


@with_family
def test_export_with_a_dynamic_batch(module, options, targets):
    loss, n = module(2.0, **options), torch.export.Dim("n", min=2)
    program = torch.export.export(loss, batch(targets), dynamic_shapes=({0: n}, {0: n}), strict=True)
    for size in (2, 9):
        input, target = batch(targets, n=size)
        torch.testing.assert_close(program.module()(input, target), loss(input, target))


@pytest.mark.parametrize(
    ("function", "targets"), [(pl.poly1_focal_loss, index), (pl.poly1_sigmoid_focal_loss, multi_hot)]
)
def test_a_moving_gamma_of_the_function_compiles(function, targets):
    torch.compiler.reset()
    input, target = batch(targets)
    run = torch.compile(function, fullgraph=True, backend="eager")
    for gamma in (2.0, 0.5, 1.5, 0.0, 1.0):
        torch.testing.assert_close(run(input, target, gamma=gamma), function(input, target, gamma=gamma))
