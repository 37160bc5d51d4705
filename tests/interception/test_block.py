"""Where an override acts, and that nothing is left of it."""

import copy
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from polyloss_lightning import Poly1CrossEntropyLoss, poly1_cross_entropy
from polyloss_lightning.interception import LossOverride, override_losses

LOGITS, TARGET = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])


def loss():
    return F.cross_entropy(LOGITS, TARGET)


def poly(epsilon):
    return poly1_cross_entropy(LOGITS, TARGET, epsilon)


def test_it_ends_with_its_block():
    with override_losses(2.0):
        pass_through = loss()
    assert torch.equal(pass_through, poly(2.0))
    torch.testing.assert_close(loss(), poly(0.0))
    assert _get_current_function_mode_stack() == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_ends_with_an_exception(error):
    with pytest.raises(error), override_losses(2.0):
        raise error
    torch.testing.assert_close(loss(), poly(0.0))
    assert _get_current_function_mode_stack() == []


def test_epsilon_moves_while_it_is_entered():
    with override_losses() as override:
        for epsilon in (-1.0, 0.5, (1.0, -0.5)):
            override.epsilon = epsilon
            assert override.epsilon == epsilon
            assert torch.equal(loss(), poly(epsilon))
        with pytest.raises(ValueError, match="finite"):
            override.epsilon = float("inf")


def test_an_epsilon_that_flips_the_gradient_is_warned_of_as_by_the_losses():
    with pytest.warns(UserWarning, match="epsilon -1.5 is below -1"):
        override = LossOverride(-1.5)
    override.epsilon = -2.0  # not again on every step of a schedule


def test_of_nested_overrides_the_innermost_acts():
    with override_losses(5.0, on_nothing="warn"):
        with override_losses(2.0):
            assert torch.equal(loss(), poly(2.0))
        assert torch.equal(loss(), poly(5.0))


def test_what_the_innermost_leaves_is_for_the_one_around_it():
    with override_losses(5.0) as outer, override_losses(2.0, losses=["nll_loss"]) as inner:
        assert torch.equal(loss(), poly(5.0))
        F.nll_loss(LOGITS.log_softmax(1), TARGET)
    assert [(site.function, site.replaced) for site in inner.call_sites] == [
        ("cross_entropy", False),
        ("nll_loss", True),
    ]
    assert [(site.function, site.replaced) for site in outer.call_sites] == [("cross_entropy", True)]


def test_one_override_may_be_entered_twice():
    with override_losses(2.0) as override, override:
        assert torch.equal(loss(), poly(2.0))


def test_the_losses_of_this_package_are_left_alone():
    module = Poly1CrossEntropyLoss(epsilon=3.0)
    with override_losses(2.0):
        loss()
        assert torch.equal(module(LOGITS, TARGET), poly(3.0))
        torch.testing.assert_close(module.base_loss(LOGITS, TARGET), poly(0.0))


def test_other_threads_are_left_alone():
    results = []
    with override_losses(2.0):
        thread = threading.Thread(target=lambda: results.append(loss()))
        thread.start()
        thread.join()
        results.append(loss())
    torch.testing.assert_close(torch.stack(results), torch.stack([poly(0.0), poly(2.0)]))


def test_other_modes_go_on_to_see_what_they_saw():
    class Count(TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen += func is F.relu
            return func(*args, **(kwargs or {}))

    with Count() as outer, override_losses(2.0), Count() as inner:
        F.relu(LOGITS)
        assert torch.equal(loss(), poly(2.0))
    assert outer.seen == inner.seen == 1


def test_functional_transforms_see_the_replaced_loss():
    def of(logits):
        return F.cross_entropy(logits, TARGET)

    with override_losses(2.0):
        gradient = torch.func.grad(of)(LOGITS)
        per_sample = torch.func.vmap(F.cross_entropy)(LOGITS, TARGET)
    torch.testing.assert_close(gradient, torch.func.grad(lambda x: poly1_cross_entropy(x, TARGET, 2.0))(LOGITS))
    torch.testing.assert_close(per_sample, poly1_cross_entropy(LOGITS, TARGET, 2.0, reduction="none"))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda override: pickle.loads(pickle.dumps(override))])
@pytest.mark.parametrize("elementwise", ["error", "apply"])
def test_it_can_be_copied_and_pickled_and_observers_stay_behind(again, elementwise):
    override = LossOverride(2.0, elementwise=elementwise)
    override.observables()["cross_entropy"].register_observer(lambda observation: None)
    with override, again(override) as copied:
        assert torch.equal(loss(), poly(2.0))
        assert override.observed
        assert not copied.observed
        copied.epsilon = 1.0
        assert torch.equal(loss(), poly(1.0))
        assert override.epsilon == 2.0
        loss()
        with override:
            loss()


def test_after_blocks_that_overlap_compiled_code_runs_as_such_again():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    override = LossOverride(2.0)
    with override, copy.deepcopy(override):
        loss()
        with override:
            loss()
    torch.compile(lambda x: x + 1, backend=backend)(LOGITS)
    assert len(graphs) == 1
