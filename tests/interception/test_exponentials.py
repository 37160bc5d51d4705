"""An exponential of a replaced loss is refused if it takes part in what is trained, and not if it does not."""

import importlib.util
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from polyloss_lightning.interception import LossOverrideError, override_losses


def load(name):
    """Import a file of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


refused, accepted = load("refused_exponentials"), load("accepted_exponentials")
REFUSED, ACCEPTED = refused.REFUSED, accepted.ACCEPTED
focal, poly_by_hand = refused.focal, accepted.poly_by_hand

# torch.compile itself looks at the gradient of each input
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
TARGET = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def logits():
    return torch.randn(6, 3, requires_grad=True)


def by_torch(logits):
    return lambda reduction: F.cross_entropy(logits, TARGET, reduction=reduction)


def by_hand(logits):
    return lambda reduction: poly_by_hand(logits, TARGET, reduction)


@pytest.fixture(autouse=True)
def _fresh_compiler(request):
    if "compiled" in request.node.name:
        torch.compiler.reset()


@pytest.mark.parametrize("name", REFUSED)
def test_an_exponential_that_is_trained_with_is_refused(logits, name):
    refusal = pytest.raises(
        LossOverrideError, match=r"refused_exponentials.py:\d+ .*pt = exp\(-ce\)(?s:.*)LossProvider"
    )
    with refusal, override_losses(2.0, elementwise="apply"):
        REFUSED[name](by_torch(logits), logits).backward()
    with refusal:
        with override_losses(2.0, elementwise="apply"):
            loss = REFUSED[name](by_torch(logits), logits)
        loss.backward()
    assert logits.grad is None


class Running:
    """Steps that keep a running mean of their losses."""

    def __init__(self):
        self.override = override_losses(2.0)
        self.mean = torch.ones(())

    def step(self, logits, weight=torch.ones_like):
        with self.override.intercepting():
            loss = F.cross_entropy(logits, TARGET)
            value = weight(self.mean) * loss
            self.mean = 0.9 * self.mean + 0.1 * loss.detach()
            value.backward()


def test_an_exponential_of_the_losses_of_earlier_steps_is_refused(logits):
    running = Running()
    running.step(logits)
    with pytest.raises(LossOverrideError, match="pt = exp"):
        running.step(logits, lambda mean: torch.exp(-mean))


def test_one_that_is_only_logged_is_not_and_other_uses_are_not(logits):
    running = Running()
    for _ in range(4):
        assert torch.exp(running.mean) > 0
        running.step(logits, lambda mean: 1 / mean)


@pytest.mark.parametrize("elementwise", ["error", "skip"])
@pytest.mark.parametrize("name", ["torch.exp, mean", "detached, sum", "of_binary", "softmax_over_losses"])
def test_it_is_refused_for_every_choice_of_elementwise(logits, name, elementwise):
    with pytest.raises(LossOverrideError, match="pt = exp"), override_losses(2.0, elementwise=elementwise):
        REFUSED[name](by_torch(logits), logits).backward()


@pytest.mark.parametrize("name", ["torch.exp, none", "written_by_mask", "log_sum_exp"])
def test_a_loss_that_is_skipped_may_be_exponentiated(logits, name):
    with override_losses(2.0, elementwise="skip"):
        loss = REFUSED[name](by_torch(logits), logits)
        F.cross_entropy(logits, TARGET)
    torch.testing.assert_close(loss, REFUSED[name](by_torch(logits), logits))
    loss.backward()


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_not_trained_with_an_exponential_is_accepted_and_right(logits, name):
    for _ in range(3):  # compiled code is not compiled while a loss is new
        with override_losses(2.0, elementwise="apply"):
            loss = ACCEPTED[name](by_torch(logits), logits)
            (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        torch.testing.assert_close(gradient, torch.autograd.grad(loss, logits)[0])
        expected = ACCEPTED[name](by_hand(logits), logits)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0], rtol=1e-4, atol=1e-5)


@pytest.fixture
def script():
    def script(function):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated
            return torch.jit.script(function)

    return script


@pytest.mark.parametrize("warm", [False, True])
def test_scripted_code_is_refused_if_it_contains_an_exponential_or_is_opaque(logits, script, warm):
    def scripted_focal(loss):
        return (1 - torch.exp(-loss)) ** 2 * loss

    helper = script(scripted_focal)
    for _ in range(3 if warm else 0):  # scripted code is fused after some calls, and opaque from then on
        helper(F.cross_entropy(logits, TARGET))
    with pytest.raises(LossOverrideError, match="Scripted code calls"), override_losses(2.0, elementwise="apply"):
        helper(F.cross_entropy(logits, TARGET)).backward()
    if warm:
        with pytest.warns(UserWarning, match="It cannot be determined whether scripted code"), override_losses(2.0):
            helper(F.cross_entropy(logits, TARGET)).backward()


def test_scripted_code_without_an_exponential_is_accepted(logits, script):
    def scripted_mean(loss, weight):
        return (loss * weight).sum() / weight.sum()

    helper, weight = script(scripted_mean), torch.rand(6)
    for _ in range(3):
        with override_losses(2.0, elementwise="apply"):
            loss = helper(F.cross_entropy(logits, TARGET, reduction="none"), weight)
            loss.backward()
        torch.testing.assert_close(loss, (poly_by_hand(logits, TARGET, "none") * weight).sum() / weight.sum())


def test_what_is_followed_is_forgotten_after_the_backward_pass(logits):
    with override_losses() as override:
        for _ in range(5):  # what is left of a new loss is followed a little longer
            F.cross_entropy(logits, TARGET).backward()
        assert not override._mode.exponentials.following


def test_compiled_code_that_takes_an_exponential_later_is_refused_at_the_latest_in_the_next_step(logits):
    torch.compiler.reset()

    @torch.compile(backend="aot_eager")
    def helper(loss, late):
        return focal(loss, torch.exp(-loss)) if late else loss * 2

    override = override_losses(2.0)

    def step(late):
        with override.intercepting():
            helper(F.cross_entropy(logits, TARGET), late).backward()

    def steps(late, count):
        for _ in range(count):
            step(late)

    steps(late=False, count=6)
    with pytest.raises(LossOverrideError, match="calls exp"):
        steps(late=True, count=2)
