"""What every loss module shares: epsilon, observers, and what a copy, a pickle and a state_dict hold."""

import copy
import io
import math
import pickle
import warnings

import pytest
import torch

from polyloss_lightning import Poly1CrossEntropyLoss, PolyLoss

INPUT, TARGET = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1])


def saved_and_loaded(loss):
    buffer = io.BytesIO()
    torch.save(loss, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = [copy.copy, copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss)), saved_and_loaded]


class TestEpsilon:
    @pytest.mark.parametrize(
        ("given", "shown"), [(2, 2.0), (-0.5, -0.5), ([1.5], 1.5), ([1, -0.25], (1.0, -0.25)), ((0.0, 1), (0.0, 1.0))]
    )
    def test_is_a_float_or_a_tuple_of_them(self, given, shown):
        assert Poly1CrossEntropyLoss(given).epsilon == shown
        loss = Poly1CrossEntropyLoss()
        loss.epsilon = given
        assert loss.epsilon == shown

    def test_assigned_is_in_force_at_once(self):
        loss = Poly1CrossEntropyLoss(1.0)
        loss.epsilon = 3.0
        torch.testing.assert_close(loss(INPUT, TARGET), Poly1CrossEntropyLoss(3.0)(INPUT, TARGET))

    @pytest.mark.parametrize("bad", [math.nan, math.inf, [], [1.0, math.nan]])
    def test_refused_leaves_the_old_one(self, bad):
        loss = Poly1CrossEntropyLoss(2.0)
        with pytest.raises(ValueError, match="`epsilon`"):
            loss.epsilon = bad
        assert loss.epsilon == 2.0

    @pytest.mark.parametrize("bad", ["1", None, torch.tensor(1.0), True, b"1", torch.nn.Parameter(torch.tensor(1.0))])
    def test_that_is_no_number_is_a_type_error(self, bad):
        with pytest.raises(TypeError, match="`epsilon` must be a finite number"):
            Poly1CrossEntropyLoss(bad)
        loss = Poly1CrossEntropyLoss(2.0)
        with pytest.raises(TypeError, match="`epsilon` must be a finite number"):
            loss.epsilon = bad
        assert loss.epsilon == 2.0
        assert not list(loss.parameters())

    def test_is_no_key_and_no_parameter(self):
        loss = Poly1CrossEntropyLoss([1.0, 2.0], weight=[1.0, 2.0, 3.0])
        assert not loss.state_dict()
        assert not list(loss.parameters())
        loss.load_state_dict({}, strict=True)


class TestSignFlipWarning:
    @pytest.mark.parametrize(
        ("epsilon", "message"),
        [(-1.5, r"epsilon -1.5 is below -1,.* Pt > 0.667"), ([0.0, -0.6], r"epsilon -0.6 is below -0.5,.* term 2")],
    )
    def test_names_value_bound_and_effect(self, epsilon, message):
        with pytest.warns(UserWarning, match=message):
            Poly1CrossEntropyLoss(epsilon)
        loss = Poly1CrossEntropyLoss()
        with pytest.warns(UserWarning, match=message) as caught:
            loss.epsilon = epsilon
        assert caught[0].filename == __file__

    @pytest.mark.parametrize("epsilon", [-1.0, [-1.0, -0.5, -1 / 3], 0.0, 100.0])
    def test_is_silent_where_no_coefficient_is_negative(self, epsilon):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Poly1CrossEntropyLoss(epsilon)

    def test_comes_once_while_a_schedule_stays_below_and_again_on_the_next_crossing(self):
        loss = Poly1CrossEntropyLoss(-0.9)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for epsilon in (-1.1, -1.2, -1.3, -1.25):
                loss.epsilon = epsilon
            assert len(caught) == 1
            loss.epsilon = 0.0
            loss.epsilon = -1.1
            assert len(caught) == 2

    def test_the_flip_is_where_it_says(self):
        with pytest.warns(UserWarning, match="0.5"):
            loss = Poly1CrossEntropyLoss(-2.0)
        logits = torch.tensor([[0.1, 0.0], [-0.1, 0.0]], requires_grad=True)  # Pt just above and below 0.5
        loss(logits, torch.tensor([0, 0])).backward()
        assert logits.grad[0, 0] > 0 > logits.grad[1, 0]


class TestObservers:
    def test_see_every_call_until_removed(self):
        loss, seen = Poly1CrossEntropyLoss(), []
        handle = loss.register_observer(seen.append)
        loss(INPUT, TARGET)
        loss(INPUT[:2], TARGET[:2])
        handle.remove()
        loss(INPUT, TARGET)
        assert [len(observation.log_p) for observation in seen] == [5, 2]
        handle.remove()  # twice is no error

    def test_end_with_their_context_also_after_an_exception(self):
        loss, seen = Poly1CrossEntropyLoss(), []
        with pytest.raises(ValueError, match="must hold class indices"), loss.register_observer(seen.append):
            loss(INPUT, loss(INPUT, TARGET))
        loss(INPUT, TARGET)
        assert len(seen) == 1

    def test_are_called_in_order_and_removed_one_by_one(self):
        loss, order = Poly1CrossEntropyLoss(), []
        first = loss.register_observer(lambda _: order.append("first"))
        loss.register_observer(lambda _: order.append("second"))
        loss(INPUT, TARGET)
        first.remove()
        loss(INPUT, TARGET)
        assert order == ["first", "second", "second"]

    def test_may_remove_themselves(self):
        loss, seen = Poly1CrossEntropyLoss(), []

        def once(observation):
            seen.append(observation)
            handle.remove()

        handle = loss.register_observer(once)
        loss.register_observer(seen.append)
        loss(INPUT, TARGET)
        loss(INPUT, TARGET)
        assert len(seen) == 3

    def test_do_not_change_loss_or_gradient(self):
        results = []
        for observed in (False, True):
            loss, input = Poly1CrossEntropyLoss(2.0), INPUT.clone().requires_grad_()
            if observed:
                loss.register_observer(lambda _: None)
            result = loss(input, TARGET)
            result.backward()
            results.append((result.detach(), input.grad))
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)

    def test_raise_through_the_loss(self):
        loss = Poly1CrossEntropyLoss()

        def broken(observation):
            raise KeyError("observer")

        with loss.register_observer(broken), pytest.raises(KeyError, match="observer"):
            loss(INPUT, TARGET)
        assert loss(INPUT, TARGET).isfinite()

    def test_may_call_another_observed_loss(self):
        outer, inner, seen = Poly1CrossEntropyLoss(1.0), Poly1CrossEntropyLoss(2.0), []
        inner.register_observer(seen.append)
        outer.register_observer(lambda _: inner(INPUT, TARGET))
        outer.register_observer(seen.append)
        outer(INPUT, TARGET)
        assert [observation.epsilon for observation in seen] == [(2.0,), (1.0,)]

    def test_do_not_see_the_base_loss(self):
        loss, seen = Poly1CrossEntropyLoss(), []
        loss.register_observer(seen.append)
        loss.base_loss(INPUT, TARGET)
        assert not seen

    @pytest.mark.parametrize("copied", COPIES)
    def test_stay_with_the_original(self, copied):
        loss, seen = Poly1CrossEntropyLoss(2.0, weight=[1.0, 2.0, 3.0]), []
        handle = loss.register_observer(lambda observation: seen.append(observation.log_p))  # a lambda does not pickle
        twin = copied(loss)
        torch.testing.assert_close(twin(INPUT, TARGET), Poly1CrossEntropyLoss(2.0, weight=[1, 2, 3])(INPUT, TARGET))
        assert not seen
        loss(INPUT, TARGET)
        assert len(seen) == 1
        twin_seen = []
        twin.register_observer(twin_seen.append)
        handle.remove()
        loss(INPUT, TARGET)
        twin(INPUT, TARGET)
        assert len(seen) == len(twin_seen) == 1


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_has_an_epsilon_of_its_own(copied):
    loss = Poly1CrossEntropyLoss(2.0)
    twin = copied(loss)
    loss.epsilon = 3.0
    assert twin.epsilon == 2.0


def test_a_loss_keeps_no_graph():
    loss = Poly1CrossEntropyLoss()
    loss.register_observer(lambda _: None)
    loss(INPUT.clone().requires_grad_(), TARGET)
    held = [value for module in loss.modules() for value in vars(module).values()]
    assert not any(isinstance(value, torch.Tensor) for value in held)


def test_base_loss_stands_still_while_epsilon_moves():
    loss = Poly1CrossEntropyLoss(1.0, weight=[1.0, 2.0, 3.0], label_smoothing=0.1, num_terms=4)
    expected = torch.nn.functional.cross_entropy(
        INPUT, TARGET, weight=torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1
    )
    for epsilon in (-1.0, 0.0, 5.0):
        loss.epsilon = epsilon
        torch.testing.assert_close(loss.base_loss(INPUT, TARGET), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_a_model_that_contains_a_loss_can_be_scripted_and_saved_but_not_call_it():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 3)
            self.loss_fn = Poly1CrossEntropyLoss([1.0, 0.5], weight=[1.0, 2.0, 3.0])

        def forward(self, input):
            return self.linear(input)

        @torch.jit.export
        def training_loss(self, input, target):
            return self.loss_fn(self.linear(input), target)

    model, buffer = Model(), io.BytesIO()
    torch.jit.save(torch.jit.script(model), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    torch.testing.assert_close(loaded(INPUT), model(INPUT))
    with pytest.raises(Exception, match=r"loss_fn|@unused"):
        loaded.training_loss(INPUT, TARGET)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated", "ignore::torch.jit.TracerWarning")
def test_a_loss_can_be_traced():
    loss = Poly1CrossEntropyLoss(2.0)
    traced = torch.jit.trace(loss, (INPUT, TARGET))
    torch.testing.assert_close(traced(2 * INPUT, TARGET), loss(2 * INPUT, TARGET))


def test_the_base_is_abstract():
    with pytest.raises(TypeError, match="entries"):
        PolyLoss()


def test_the_repr_of_a_loss_with_many_class_weights_is_short():
    assert "weight=<tensor of shape (1000,)>" in repr(Poly1CrossEntropyLoss(weight=torch.ones(1000)))
    assert "weight=[1.0, 2.0]" in repr(Poly1CrossEntropyLoss(weight=[1.0, 2.0]))


def test_a_reduction_that_is_set_later_is_validated():
    loss = Poly1CrossEntropyLoss()
    with pytest.raises(ValueError, match="'foo'"):
        loss.reduction = "foo"
    loss.reduction = "sum"
    logits = torch.randn(4, 3)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(4) % 3, reduction="sum")
    torch.testing.assert_close(loss.base_loss(logits, torch.arange(4) % 3), expected)


def test_an_epsilon_beyond_the_kept_terms_is_refused_also_later():
    loss = Poly1CrossEntropyLoss(num_terms=2)
    with pytest.raises(ValueError, match=r"`num_terms` must be at least the number of epsilons \(3\), got 2"):
        loss.epsilon = [1.0, 2.0, 3.0]
    assert loss.epsilon == 1.0


def test_an_epsilon_in_the_state_dict_of_another_loss_is_an_unexpected_key():
    loss = Poly1CrossEntropyLoss(1.0)
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "epsilon"'):
        loss.load_state_dict({"epsilon": torch.tensor(3.0)})
    assert loss.epsilon == 1.0
