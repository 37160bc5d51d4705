"""Log-softmax in every digit: the formula, and the closed form that eager autograd takes."""

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from polyloss_lightning.links.log_softmax import exact_log_softmax, exact_log_softmax_at

CLASSES = 4
SHAPES = [(CLASSES,), (6, CLASSES), (3, CLASSES, 5), (2, CLASSES, 3, 2), (0, CLASSES), (0, CLASSES, 2)]


def batch(shape, dtype=torch.float64):
    class_dim = min(1, len(shape) - 1)
    index = torch.randint(CLASSES, shape[:class_dim] + shape[class_dim + 1 :])
    return torch.randn(shape, dtype=dtype, requires_grad=True), index, class_dim


def formula(input, index, class_dim):
    return exact_log_softmax(input, class_dim, input.dtype).gather(class_dim, index.unsqueeze(class_dim))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_are_log_softmax(shape, scale):
    input, index, class_dim = batch(shape)
    expected = (scale * input).log_softmax(class_dim)
    torch.testing.assert_close(exact_log_softmax(scale * input, class_dim, torch.float64), expected)
    at = exact_log_softmax_at(scale * input, index, class_dim, torch.float64)
    torch.testing.assert_close(at, expected.gather(class_dim, index.unsqueeze(class_dim)).squeeze(class_dim))


@pytest.mark.parametrize("lead", [1.0, 10.0, 17.0, 18.420681, 40.0, 80.0])
@pytest.mark.parametrize("other", [0, 1, 2])
def test_both_keep_every_digit_in_float32(lead, other):
    """Of a sample whose first class leads, at that class and at the others."""
    input = torch.tensor([[lead, 0.0, -1.0]], requires_grad=True)
    exact = input.detach().double().requires_grad_()
    odds = exact - torch.stack([exact[:, [k for k in range(3) if k != c]].logsumexp(1) for c in range(3)], 1)
    log_p = torch.nn.functional.logsigmoid(odds)[:, other]
    expected = (log_p, *torch.autograd.grad(log_p, exact))
    for actual in (
        exact_log_softmax(input, 1, torch.float32)[:, other],
        exact_log_softmax_at(input, torch.tensor([other]), 1, torch.float32),
    ):
        for ours, truth in zip((actual, *torch.autograd.grad(actual, input)), expected, strict=True):
            torch.testing.assert_close(ours.double(), truth, rtol=1e-6, atol=1e-37)


def test_no_class_two_classes_or_one_class_is_confident():
    input = torch.tensor([[0.0, 0.0], [torch.inf, 0.0], [0.0, -torch.inf], [0.2, 0.0]], requires_grad=True)
    log_p = exact_log_softmax(input, 1, torch.float32)
    torch.testing.assert_close(log_p, input.log_softmax(1), equal_nan=True)
    torch.testing.assert_close(
        exact_log_softmax_at(input, torch.tensor([0, 0, 0, 0]), 1, torch.float32), log_p[:, 0], equal_nan=True
    )


class TestTheClosedForm:
    @pytest.mark.parametrize("shape", [shape for shape in SHAPES if 0 not in shape])
    def test_has_the_derivatives_of_finite_differences(self, shape):
        input, index, class_dim = batch(shape)
        input = (3 * input).detach().requires_grad_()

        def function(input):
            return exact_log_softmax_at(input, index, class_dim, torch.float64)

        assert "_LogSoftmaxAt" in type(function(input).grad_fn.next_functions[0][0]).__name__
        assert gradcheck(function, input)
        assert gradgradcheck(function, input)

    def test_has_the_third_derivative_of_the_formula(self):
        input, index, class_dim = batch((5, CLASSES))
        found = []
        for function in (lambda x: exact_log_softmax_at(x, index, class_dim, x.dtype), lambda x: formula(x, index, 1)):
            value = function(input).pow(2).sum()
            for order in range(3):
                (gradient,) = torch.autograd.grad(value, input, create_graph=True)
                value = (gradient * torch.linspace(-1, 1, CLASSES) ** order).sum()
            found.append(value)
        torch.testing.assert_close(found[0], found[1])

    def test_keeps_one_tensor_of_the_size_of_the_logits(self):
        input, index, class_dim = batch((64, CLASSES), torch.float32)
        kept = []

        def pack(tensor):
            kept.append((tensor.shape, tensor.data_ptr() == input.data_ptr()))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            log_pt = exact_log_softmax_at(input, index, class_dim, torch.float32)
        large = [alias for shape, alias in kept if shape == input.shape]
        assert large == [False]
        with torch.no_grad():
            input.zero_()  # as after F.cross_entropy, the logits may be overwritten before backward
        log_pt.sum().backward()
        assert input.grad.abs().sum() > 0

    def test_may_go_backward_twice(self):
        input, index, class_dim = batch((5, CLASSES))
        loss = exact_log_softmax_at(input, index, class_dim, torch.float64).sum()
        first, second = (torch.autograd.grad(loss, input, retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_of_half_precision_is_computed_in_float32(self, dtype):
        input, index, class_dim = batch((5, CLASSES))
        half = input.detach().to(dtype).requires_grad_()
        log_pt = exact_log_softmax_at(half, index, class_dim, torch.float32)
        assert log_pt.dtype == torch.float32
        log_pt.sum().backward()
        assert half.grad.dtype == dtype
        torch.testing.assert_close(log_pt, formula(half.float(), index, 1).squeeze(1))

    def test_is_taken_for_a_parameter_and_for_logits_of_no_gradient(self):
        input, index, _ = batch((5, CLASSES))
        expected = formula(input, index, 1).squeeze(1)
        for logits in (input.detach(), torch.nn.Parameter(input.detach())):
            torch.testing.assert_close(exact_log_softmax_at(logits, index, 1, torch.float64), expected)


class Subclass(torch.Tensor):
    pass


class TestTheFormulaIsTakenWhereSomebodyElseLooksOn:
    def value(self, input, index):
        return exact_log_softmax_at(input, index, 1, torch.float64)

    def test_subclasses(self):
        input, index, _ = batch((5, CLASSES))
        actual = self.value(input.detach().as_subclass(Subclass), index)
        assert type(actual) is Subclass
        torch.testing.assert_close(actual.as_subclass(torch.Tensor), self.value(input, index).detach())

    # torch compiles its decompositions for forward mode with its own deprecated function.
    @pytest.mark.filterwarnings("ignore:.torch.jit.script.* is deprecated:FutureWarning")
    def test_forward_mode(self):
        input, index, _ = batch((5, CLASSES))
        tangent = torch.randn_like(input)
        with forward_ad.dual_level():
            dual = self.value(forward_ad.make_dual(input.detach(), tangent), index)
            forward = forward_ad.unpack_dual(dual).tangent
        jacobian = torch.autograd.functional.jacobian(lambda x: self.value(x, index), input)
        torch.testing.assert_close(forward, (jacobian * tangent).sum((1, 2)))

    @pytest.mark.filterwarnings("ignore:.torch.jit.trace.* is deprecated:FutureWarning")
    def test_tracing(self):
        input, index, _ = batch((5, CLASSES))
        traced = torch.jit.trace(lambda input: self.value(input, index), input.detach())
        assert "PythonOp" not in str(traced.graph)
        torch.testing.assert_close(traced(input), self.value(input, index))

    def test_transforms(self):
        input, index, _ = batch((5, CLASSES))
        each = torch.vmap(torch.func.grad(lambda x, i: exact_log_softmax_at(x, i, 0, torch.float64)))(input, index)
        torch.testing.assert_close(each, torch.autograd.grad(self.value(input, index).sum(), input)[0])


@pytest.mark.parametrize("bad", [CLASSES, -1])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_an_index_out_of_range_raises(bad, requires_grad):
    input = torch.zeros((2, CLASSES), requires_grad=requires_grad)
    with pytest.raises(RuntimeError, match="out of bounds"):
        exact_log_softmax_at(input, torch.tensor([0, bad]), 1, torch.float32)
