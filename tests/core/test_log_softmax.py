"""Log-softmax in every digit: the formula, and the closed form that eager autograd takes."""

import pytest
import torch
import torch.nn.functional as F
from polyloss_lightning.links.log_softmax import _formula, exact_log_softmax, exact_log_softmax_at
from torch.autograd import forward_ad, gradcheck, gradgradcheck

CLASSES = 4
SHAPES = [(CLASSES,), (6, CLASSES), (3, CLASSES, 5), (2, CLASSES, 3, 2), (0, CLASSES), (0, CLASSES, 2)]


def batch(shape, dtype=torch.float64):
    class_dim = min(1, len(shape) - 1)
    index = torch.randint(CLASSES, shape[:class_dim] + shape[class_dim + 1 :])
    return torch.randn(shape, dtype=dtype, requires_grad=True), index, class_dim


def at(index, class_dim):
    return lambda input: exact_log_softmax_at(input, index, class_dim, input.dtype)


def both_outputs(index, class_dim):
    """log P and 1 - P of every class in one tensor, so that derivatives of both are looked at."""
    return lambda input: torch.stack(exact_log_softmax(input, class_dim, input.dtype))


def formula(input, class_dim):
    """In float64, where nothing is lost that matters here."""
    log_p = input.log_softmax(class_dim)
    return log_p, -log_p.expm1()


closed_forms = pytest.mark.parametrize("function", [at, both_outputs])


def of(function, input, index, class_dim):
    log_p, u = function(input, class_dim)
    return log_p.gather(class_dim, index.unsqueeze(class_dim)).squeeze(class_dim), u


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_are_log_softmax(shape, scale):
    input, index, class_dim = batch(shape)
    log_p, u = formula(scale * input, class_dim)
    torch.testing.assert_close(exact_log_softmax(scale * input, class_dim, torch.float64), (log_p, u))
    actual = exact_log_softmax_at(scale * input, index, class_dim, torch.float64)
    torch.testing.assert_close(actual, log_p.gather(class_dim, index.unsqueeze(class_dim)).squeeze(class_dim))


@pytest.mark.parametrize("lead", [1.0, 10.0, 17.0, 18.420681, 40.0, 80.0])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_all_keep_every_digit_in_float32(lead, index):
    """Of a sample whose first class leads, at that class and at the others."""
    input = torch.tensor([[lead, 0.0, -1.0]], requires_grad=True)
    exact = input.detach().double().requires_grad_()
    rest = torch.stack([exact[:, [k for k in range(3) if k != c]].logsumexp(1) for c in range(3)], 1)
    odds = (exact - rest)[:, index]
    log_p = F.logsigmoid(odds)
    u = torch.sigmoid(-odds) if index == 0 else 1 - log_p.exp()  # each where it loses nothing
    found = [function(input, 1, torch.float32) for function in (exact_log_softmax, _formula)]
    pairs = [(actual[:, index], truth) for pair in found for actual, truth in zip(pair, (log_p, u), strict=True)]
    pairs.append((exact_log_softmax_at(input, torch.tensor([index]), 1, torch.float32), log_p))
    for actual, truth in pairs:
        (gradient,) = torch.autograd.grad(actual, input, retain_graph=True)
        (true_gradient,) = torch.autograd.grad(truth, exact, retain_graph=True)
        torch.testing.assert_close(actual.double(), truth, rtol=1e-6, atol=1e-37)
        torch.testing.assert_close(gradient.double(), true_gradient, rtol=2e-6, atol=1e-37)


def test_no_class_two_classes_or_one_class_is_confident():
    input = torch.tensor([[0.0, 0.0], [torch.inf, 0.0], [0.0, -torch.inf], [0.2, 0.0]], requires_grad=True)
    log_p, u = exact_log_softmax(input, 1, torch.float32)
    torch.testing.assert_close(log_p, input.log_softmax(1), equal_nan=True)
    torch.testing.assert_close(u, 1 - input.softmax(1), equal_nan=True)
    actual = exact_log_softmax_at(input, torch.tensor([0, 0, 0, 0]), 1, torch.float32)
    torch.testing.assert_close(actual, log_p[:, 0], equal_nan=True)


def test_one_class_alone_is_certain():
    log_p, u = exact_log_softmax(torch.randn(3, 1), 1, torch.float32)
    assert not log_p.any()
    assert not u.any()


def kept_by(function, input):
    """Whether each tensor of the size of the logits that waits for backward is the logits themselves."""
    kept = []

    def pack(tensor):
        kept.append((tensor.shape, tensor.data_ptr() == input.data_ptr()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function(input)
    return result, [alias for shape, alias in kept if shape == input.shape]


class TestTheClosedForms:
    @closed_forms
    @pytest.mark.parametrize("shape", [shape for shape in SHAPES if 0 not in shape])
    def test_have_the_derivatives_of_finite_differences(self, shape, function):
        input, index, class_dim = batch(shape)
        input = (3 * input).detach().requires_grad_()
        assert gradcheck(function(index, class_dim), input)
        assert gradgradcheck(function(index, class_dim), input)

    @pytest.mark.parametrize("output", [0, 1])
    def test_have_the_derivatives_of_each_output_alone(self, output):
        input, _, _ = batch((5, CLASSES))

        def function(input):
            return exact_log_softmax(input, 1, input.dtype)[output]

        assert gradcheck(function, input)
        assert gradgradcheck(function, input)

    def test_have_the_third_derivatives_of_the_formula(self):
        input, index, _ = batch((5, CLASSES))
        found = []
        for function in (
            lambda x: (exact_log_softmax_at(x, index, 1, x.dtype), exact_log_softmax(x, 1, x.dtype)[1]),
            lambda x: of(lambda x, dim: exact_log_softmax(x, dim, x.dtype), x, index, 1),
            lambda x: of(formula, x, index, 1),
        ):
            log_pt, u = function(input)
            value = log_pt.pow(2).sum() + u.pow(3).sum()
            for order in range(3):
                (gradient,) = torch.autograd.grad(value, input, create_graph=True)
                value = (gradient * torch.linspace(-1, 1, CLASSES) ** order).sum()
            found.append(value)
        torch.testing.assert_close(found[:2], [found[2]] * 2)

    @closed_forms
    def test_keep_one_tensor_of_the_size_of_the_logits(self, function):
        input, index, class_dim = batch((64, CLASSES), torch.float32)
        result, large = kept_by(function(index, class_dim), input)
        assert large == [False]
        with torch.no_grad():
            input.zero_()  # as after F.cross_entropy, the logits may be overwritten before backward
        (result * torch.randn_like(result)).sum().backward()
        assert input.grad.abs().sum() > 0

    @closed_forms
    def test_may_go_backward_twice(self, function):
        input, index, class_dim = batch((5, CLASSES))
        loss = function(index, class_dim)(input).pow(2).sum()
        first, second = (torch.autograd.grad(loss, input, retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_take_every_memory_format(self, memory_format):
        input, index, _ = batch((2, CLASSES, 3, 5))
        given = input.detach().to(memory_format=memory_format).requires_grad_()
        for function in (at, both_outputs):
            (expected,) = torch.autograd.grad(function(index, 1)(input).pow(2).sum(), input)
            (gradient,) = torch.autograd.grad(function(index, 1)(given).pow(2).sum(), given)
            torch.testing.assert_close(gradient, expected)

    @closed_forms
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_of_half_precision_are_computed_in_float32(self, dtype, function):
        input, index, _ = batch((5, CLASSES), torch.float32)
        half = input.detach().to(dtype).requires_grad_()
        full = half.detach().float().requires_grad_()
        log_p, u = exact_log_softmax(half, 1, torch.float32)
        log_pt = exact_log_softmax_at(half, index, 1, torch.float32)
        assert {log_p.dtype, u.dtype, log_pt.dtype} == {torch.float32}
        expected_pt, expected_u = of(formula, full, index, 1)
        torch.testing.assert_close((log_pt, u), (expected_pt, expected_u))
        (gradient,) = torch.autograd.grad(log_pt.sum() + u.pow(2).sum(), half)
        (expected,) = torch.autograd.grad(expected_pt.sum() + expected_u.pow(2).sum(), full)
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.float(), expected, rtol=2e-2, atol=1e-2)

    def test_are_taken_for_a_parameter_and_for_logits_of_no_gradient(self):
        input, index, _ = batch((5, CLASSES))
        expected = of(formula, input, index, 1)
        for logits in (input.detach(), torch.nn.Parameter(input.detach())):
            actual = of(lambda x, dim: exact_log_softmax(x, dim, x.dtype), logits, index, 1)
            torch.testing.assert_close(actual, expected)
            torch.testing.assert_close(exact_log_softmax_at(logits, index, 1, torch.float64), expected[0])

    @closed_forms
    def test_show_in_the_graph_as_one_node(self, function):
        input, index, class_dim = batch((5, CLASSES))
        result = function(index, class_dim)(input)  # alive, or torch 2.6 tells nothing of its node
        node = result.grad_fn
        while node.next_functions and "LogSoftmax" not in type(node).__name__:
            node = node.next_functions[0][0]
        assert [type(following).__name__ for following, _ in node.next_functions if following] == ["AccumulateGrad"]


class Subclass(torch.Tensor):
    pass


@closed_forms
class TestTheFormulaIsTakenWhereSomebodyElseLooksOn:
    def test_subclasses(self, function):
        input, index, _ = batch((5, CLASSES))
        actual = function(index, 1)(input.detach().as_subclass(Subclass))
        assert type(actual) is Subclass
        torch.testing.assert_close(actual.as_subclass(torch.Tensor), function(index, 1)(input.detach()))

    # torch compiles its decompositions for forward mode with its own deprecated function.
    @pytest.mark.filterwarnings("ignore:.torch.jit.script.* is deprecated:FutureWarning")
    def test_forward_mode(self, function):
        input, index, _ = batch((5, CLASSES))
        tangent = torch.randn_like(input)
        with forward_ad.dual_level():
            dual = function(index, 1)(forward_ad.make_dual(input.detach(), tangent))
            forward = forward_ad.unpack_dual(dual).tangent
        jacobian = torch.autograd.functional.jacobian(function(index, 1), input)
        torch.testing.assert_close(forward, (jacobian * tangent).sum((-2, -1)))

    @pytest.mark.filterwarnings("ignore:.torch.jit.trace.* is deprecated:FutureWarning")
    def test_tracing(self, function):
        input, index, _ = batch((5, CLASSES))
        traced = torch.jit.trace(function(index, 1), input.detach())
        assert "PythonOp" not in str(traced.graph)
        torch.testing.assert_close(traced(input), function(index, 1)(input))

    def test_transforms(self, function):
        input, index, _ = batch((5, CLASSES))
        each = torch.vmap(torch.func.grad(lambda x, i: function(i, 0)(x).pow(2).sum()))(input, index)
        torch.testing.assert_close(each, torch.autograd.grad(function(index, 1)(input).pow(2).sum(), input)[0])


@pytest.mark.parametrize("bad", [CLASSES, -1])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_an_index_out_of_range_raises(bad, requires_grad):
    input = torch.zeros((2, CLASSES), requires_grad=requires_grad)
    with pytest.raises(RuntimeError, match="out of bounds"):
        exact_log_softmax_at(input, torch.tensor([0, bad]), 1, torch.float32)
