"""What is put in the place of each of torch's functions: value, gradient, options and dtype."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy as imported_by_name
from torchvision.ops import sigmoid_focal_loss

from polyloss_lightning.interception import override_losses

CLASSES = 5


@pytest.fixture
def logits():
    return (3 * torch.randn(8, CLASSES)).requires_grad_()


@pytest.fixture
def target():
    return torch.randint(CLASSES, (8,))


def both(logits, actual, expected):
    """Value and gradient of ``actual`` (in an override) and of ``expected``."""
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (actual, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("epsilon", [-1.0, 2.0, [1.0, -0.5]])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("soft", [False, True])
@given(smoothing=st.sampled_from([0.0, 0.1]), weighted=st.booleans(), ignored=st.booleans(), seed=st.integers(0, 999))
def test_cross_entropy_keeps_every_option(
    softmax_reference, epsilon, reduction, soft, smoothing, weighted, ignored, seed
):
    torch.manual_seed(seed)
    logits = (3 * torch.randn(6, CLASSES)).requires_grad_()
    target = torch.rand(6, CLASSES).softmax(1) if soft else torch.randint(CLASSES, (6,))
    weight = torch.rand(CLASSES) + 0.5 if weighted else None
    options = {"ignore_index": int(target[0])} if ignored and not soft and len(target.unique()) > 1 else {}
    with override_losses(epsilon):
        actual = F.cross_entropy(logits, target, weight, reduction=reduction, label_smoothing=smoothing, **options)
    expected = softmax_reference(
        logits, target, epsilon, weight=weight, reduction=reduction, smoothing=smoothing, **options
    )
    both(logits, actual, expected)


def test_binary_cross_entropy_ignores_no_target_as_torch_does(logits):
    target = torch.rand(8, CLASSES).masked_fill(torch.eye(8, CLASSES) == 1, -100.0)
    expected = F.binary_cross_entropy_with_logits(logits.double(), target.double())
    with override_losses(0.0):
        actual = F.binary_cross_entropy_with_logits(logits, target)
    both(logits, actual, expected)


@pytest.mark.parametrize("call", [nn.CrossEntropyLoss(), imported_by_name, nn.functional.cross_entropy])
def test_it_is_replaced_by_whatever_name_it_is_called(softmax_reference, logits, target, call):
    with override_losses(2.0):
        actual = call(logits, target)
    both(logits, actual, softmax_reference(logits, target, 2.0))


def test_positional_arguments_and_the_old_reduction_arguments_mean_what_they_mean_in_torch(
    softmax_reference, logits, target
):
    with override_losses(2.0):
        total = F.cross_entropy(logits, target, None, None, 1, None, "sum", 0.1)
        with pytest.warns(UserWarning, match="size_average and reduce"):
            old = F.cross_entropy(logits, target, size_average=False)
    both(logits, total, softmax_reference(logits, target, 2.0, ignore_index=1, reduction="sum", smoothing=0.1))
    both(logits, old, softmax_reference(logits, target, 2.0, reduction="sum"))


def test_old_reduction_arguments_that_mean_none_are_seen_as_such(logits, target):
    with override_losses(elementwise="skip", on_nothing="warn") as override:
        with pytest.warns(UserWarning, match="size_average and reduce"):
            F.cross_entropy(logits, target, reduce=False)
        F.cross_entropy(logits, target)
    assert [(site.reduction, site.replaced) for site in override.call_sites] == [("none", False), ("mean", True)]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_binary_cross_entropy_keeps_weights_and_soft_targets(sigmoid_reference, logits, reduction):
    q, weight, pos_weight = torch.rand(8, CLASSES), torch.rand(8, 1) + 0.5, torch.rand(CLASSES) + 0.5
    with override_losses(-1.0):
        actual = F.binary_cross_entropy_with_logits(
            logits, q, weight=weight, pos_weight=pos_weight, reduction=reduction
        )
        module = nn.BCEWithLogitsLoss(pos_weight=pos_weight, reduction=reduction)(logits, q)
    both(logits, actual, sigmoid_reference(logits, q, -1.0, weight=weight, pos_weight=pos_weight, reduction=reduction))
    both(logits, module, sigmoid_reference(logits, q, -1.0, pos_weight=pos_weight, reduction=reduction))


@pytest.mark.parametrize("alpha", [0.25, -1])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_torchvisions_focal_loss_is_poly_focal_with_every_reduction(logits, alpha, reduction):
    q = torch.randint(2, (8, CLASSES)).float()
    with override_losses(2.0):
        actual = sigmoid_focal_loss(logits, q, alpha=alpha, gamma=1.5, reduction=reduction)
    p = logits.double().sigmoid()
    pt = torch.where(q == 1, p, 1 - p)
    alpha_t = torch.where(q == 1, alpha, 1 - alpha) if alpha >= 0 else 1
    expected = alpha_t * (1 - pt) ** 1.5 * (-pt.log() + 2 * (1 - pt))
    both(logits, actual, {"none": expected, "mean": expected.mean(), "sum": expected.sum()}[reduction])


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="new in torch 2.14")
@pytest.mark.parametrize("bias", [False, True])
def test_linear_cross_entropy_is_seen_with_the_cross_entropy_in_it(softmax_reference, target, bias):
    hidden = torch.randn(8, 3, requires_grad=True)
    weight, shift = torch.randn(CLASSES, 3), torch.randn(CLASSES) if bias else None
    with override_losses(2.0) as override:
        actual = F.linear_cross_entropy(hidden, weight, target, linear_bias=shift)
    both(hidden, actual, softmax_reference(hidden @ weight.T + (shift if bias else 0), target, 2.0))
    assert [site.function for site in override.call_sites] == ["linear_cross_entropy"]


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="new in torch 2.14")
def test_linear_cross_entropy_never_holds_its_logits():
    hidden, weight = torch.randn(1024, 8, requires_grad=True), torch.randn(3000, 8, requires_grad=True)
    target = torch.randint(3000, (1024,))
    saved = []
    keep = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor
    )
    with keep, override_losses(epsilon=2.0):
        loss = F.linear_cross_entropy(hidden, weight, target)
    assert max(tensor.numel() for tensor in saved) == weight.numel()  # the logits would be 128 times larger
    pt = (hidden @ weight.T).softmax(1).gather(1, target[:, None])
    torch.testing.assert_close(loss, (-pt.log() + 2 * (1 - pt)).mean(), rtol=1e-4, atol=0)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="new in torch 2.14")
def test_linear_cross_entropy_of_several_outputs_has_torchs_shapes():
    hidden, weight = torch.randn(4, 3), torch.randn(CLASSES, 2, 3)
    target = torch.randint(CLASSES, (4, 2))
    with override_losses(0.0, elementwise="apply"):
        actual = F.linear_cross_entropy(hidden, weight, target, reduction="none", ignore_index=0)
    expected = F.linear_cross_entropy(hidden, weight, target, reduction="none", ignore_index=0)
    torch.testing.assert_close(actual, expected)


def test_nll_loss_is_replaced_on_request_and_takes_its_input_as_it_is(softmax_reference, logits, target):
    weight = torch.rand(CLASSES) + 0.5
    with override_losses(2.0, losses=["nll_loss"]):
        actual = F.nll_loss(logits.log_softmax(1), target, weight, ignore_index=2)
        unnormalized = F.nll_loss(torch.tensor([[-0.5, -0.25]]), torch.tensor([1]))
    with pytest.warns(UserWarning, match="No loss was replaced"), override_losses(2.0, on_nothing="warn"):
        untouched = F.nll_loss(logits.log_softmax(1), target)
    both(logits, actual, softmax_reference(logits, target, 2.0, weight=weight, ignore_index=2))
    assert float(unnormalized) == pytest.approx(0.25 + 2 * (1 - torch.tensor(-0.25).exp()))
    torch.testing.assert_close(untouched, F.cross_entropy(logits, target))


FUNCTIONS = {
    "cross_entropy": lambda x, dtype: F.cross_entropy(x, torch.tensor([0, 3])),
    "soft targets": lambda x, dtype: F.cross_entropy(x, torch.full((2, CLASSES), 0.2, dtype=dtype)),
    "binary": lambda x, dtype: F.binary_cross_entropy_with_logits(x, torch.ones(2, CLASSES, dtype=dtype)),
    "binary, float32 target": lambda x, dtype: F.binary_cross_entropy_with_logits(x, torch.ones(2, CLASSES)),
    "nll_loss": lambda x, dtype: F.nll_loss(x, torch.tensor([0, 3])),
    "focal": lambda x, dtype: sigmoid_focal_loss(x, torch.ones(2, CLASSES, dtype=dtype), reduction="mean"),
}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_at_epsilon_0_it_is_torchs_loss_in_value_dtype_and_gradient(name, dtype, autocast):
    logits = torch.randn(2, CLASSES).log_softmax(1).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = FUNCTIONS[name](logits, dtype)
        with override_losses(
            0.0, losses=["cross_entropy", "binary_cross_entropy_with_logits", "sigmoid_focal_loss", "nll_loss"]
        ):
            actual = FUNCTIONS[name](logits, dtype)
    assert actual.dtype == expected.dtype
    tolerance = torch.finfo(dtype).eps  # of torch's own computation, which is not in float32
    torch.testing.assert_close(actual, expected, rtol=8 * tolerance, atol=tolerance)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (actual, expected)]
    assert gradients[0].dtype == gradients[1].dtype
    torch.testing.assert_close(*gradients, rtol=8 * tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "avg"},
        {"reduction": None},
        {"reduction": ""},
        {"label_smoothing": 1.5},
        {"label_smoothing": None},
        {"ignore_index": None},
        {"ignore_index": 0.5},
        {"weight": [1.0] * CLASSES},
        {"unknown": 1},
        {"input": None},
        {"target": None},
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_options_that_torch_refuses_are_refused_as_by_torch(logits, target, options, soft):
    arguments = {"input": logits, "target": F.one_hot(target, CLASSES).float() if soft else target, **options}
    with pytest.raises((TypeError, ValueError, RuntimeError)) as expected:
        F.cross_entropy(**arguments)
    for _ in range(2):
        with pytest.raises(type(expected.value), match=re.escape(str(expected.value))), override_losses(2.0):
            F.cross_entropy(**arguments)


def test_a_negative_label_smoothing_is_none_as_in_torch(logits, target):
    with override_losses(0.0):
        actual = F.cross_entropy(logits, target, label_smoothing=-0.5)
    torch.testing.assert_close(actual, F.cross_entropy(logits, target, label_smoothing=-0.5))
    torch.testing.assert_close(actual, F.cross_entropy(logits, target))


@pytest.mark.parametrize("options", [{"reduction": "avg"}, {"reduction": None}, {"weight": 2.0}, {"pos_weight": [1.0]}])
def test_options_of_binary_cross_entropy_that_torch_refuses_are_refused_as_by_torch(logits, options):
    arguments = {"input": logits, "target": torch.ones(8, CLASSES), **options}
    with pytest.raises((TypeError, ValueError, RuntimeError)) as expected:
        F.binary_cross_entropy_with_logits(**arguments)
    with pytest.raises(type(expected.value), match=re.escape(str(expected.value))), override_losses(2.0):
        F.binary_cross_entropy_with_logits(**arguments)


@pytest.mark.parametrize("module", [nn.CrossEntropyLoss, nn.BCEWithLogitsLoss])
def test_a_reduction_that_is_set_later_is_refused_as_by_torch(logits, module):
    loss = module()
    with override_losses(2.0):
        loss(logits, torch.rand(8, CLASSES))
        loss.reduction = "foo"
        with pytest.raises(ValueError, match="foo is not a valid value for reduction"):
            loss(logits, torch.rand(8, CLASSES))


def test_an_index_to_ignore_is_refused_for_probabilities_as_by_torch(logits):
    with pytest.raises(RuntimeError, match="ignore_index") as expected:
        F.cross_entropy(logits, torch.rand(8, CLASSES), ignore_index=1)
    with pytest.raises(RuntimeError, match=re.escape(str(expected.value))), override_losses(2.0):
        F.cross_entropy(logits, torch.rand(8, CLASSES), ignore_index=1)


def test_options_are_checked_without_a_call_that_an_outer_override_takes_for_one_of_the_module(logits, target):
    nothing = pytest.warns(UserWarning, match="No call of these functions was seen")
    with nothing, override_losses(5.0, on_nothing="warn") as outer, override_losses(2.0):
        F.cross_entropy(logits, target, label_smoothing=0.123)
    assert outer.call_sites == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"losses": ["l1_loss"]}, "l1_loss"),
        ({"losses": []}, "at least one"),
        ({"losses": "cross_entropy"}, "must be a sequence of strings"),
        ({"elementwise": "no"}, "'error', 'apply', 'skip'"),
        ({"on_nothing": "no"}, "'error', 'warn'"),
        ({"scope": ["net"]}, "needs `module`"),
        ({"scope": "net", "module": nn.ReLU()}, "list of module paths"),
        ({"scope": [], "module": nn.ReLU()}, "at least one"),
        ({"epsilon": float("nan")}, "finite"),
        ({"epsilon": "1"}, "number"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        override_losses(**arguments)


BAD_NLL = {
    "fewer targets": (torch.zeros(4, 3), torch.zeros(3, dtype=torch.long), {}),
    "more weights": (torch.zeros(4, 3), torch.zeros(4, dtype=torch.long), {"weight": torch.ones(5)}),
    "int32 targets": (torch.zeros(4, 3), torch.zeros(4, dtype=torch.int32), {}),
    "no dimension": (torch.zeros(()), torch.tensor(0), {}),
    "targets that broadcast": (torch.zeros(4, 3, 2, 2), torch.zeros(4, 1, 2, dtype=torch.long), {}),
}


@pytest.mark.parametrize(("log_p", "target", "options"), BAD_NLL.values(), ids=BAD_NLL)
def test_nll_loss_refuses_what_torch_refuses(log_p, target, options):
    with pytest.raises((ValueError, TypeError, RuntimeError, IndexError)):
        F.nll_loss(log_p, target, **options)
    override = override_losses(1.0, losses=["nll_loss"], on_nothing="warn")
    with pytest.raises((ValueError, TypeError)), override:
        F.nll_loss(log_p, target, **options)


@pytest.mark.parametrize("scope", ["head", 5])
def test_a_scope_that_is_no_list_is_refused_as_it_was_given(scope):
    with pytest.raises(TypeError, match=rf"`scope` must be None or a list of module paths or globs, got {scope!r}"):
        override_losses(scope=scope)
