import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning import Poly1CrossEntropyLoss, poly1_cross_entropy

INPUT, TARGET = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1])


@given(
    epsilon=st.floats(-1, 6) | st.lists(st.floats(-1 / 3, 6), min_size=1, max_size=3),
    weight=st.none() | st.lists(st.floats(0, 10), min_size=3, max_size=3),
    ignore_index=st.sampled_from([-100, 1]),
    reduction=st.sampled_from(["none", "mean", "sum"]),
    label_smoothing=st.sampled_from([0.0, 0.2, 1.0]),
    num_terms=st.none() | st.integers(3, 5),
)
def test_module_equals_function(epsilon, weight, ignore_index, reduction, label_smoothing, num_terms):
    options = {
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
        "num_terms": num_terms,
    }
    loss = Poly1CrossEntropyLoss(epsilon, weight=weight, **options)
    tensor = None if weight is None else torch.tensor(weight)
    expected = poly1_cross_entropy(INPUT, TARGET, epsilon, weight=tensor, **options)
    torch.testing.assert_close(loss(INPUT, TARGET), expected, rtol=0, atol=0, equal_nan=True)
    # What the arguments say builds the same loss again.
    again = Poly1CrossEntropyLoss(**loss.arguments())
    torch.testing.assert_close(again(INPUT, TARGET), expected, rtol=0, atol=0, equal_nan=True)
    assert repr(again) == repr(loss)


def test_arguments_hold_the_epsilon_that_the_loss_was_built_with():
    loss = Poly1CrossEntropyLoss(2.0)
    loss.epsilon = 0.5
    assert loss.arguments() == {
        "epsilon": 2.0,
        "weight": None,
        "ignore_index": -100,
        "reduction": "mean",
        "label_smoothing": 0.0,
        "num_terms": None,
    }
    assert Poly1CrossEntropyLoss((1.0, 2.0)).arguments()["epsilon"] == [1.0, 2.0]


def test_everything_but_epsilon_is_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        Poly1CrossEntropyLoss(1.0, torch.ones(3))


@pytest.mark.parametrize("weight", [[1, 2, 3], (1.0, 2.0, 3.0), torch.tensor([1, 2, 3]), torch.tensor([1.0, 2.0, 3.0])])
def test_weight_is_a_buffer_that_no_state_dict_holds(weight):
    loss = Poly1CrossEntropyLoss(weight=weight)
    assert [name for name, _ in loss.named_buffers()] == ["weight"]
    assert loss.weight.tolist() == [1.0, 2.0, 3.0]
    assert loss.weight.is_floating_point()
    assert not loss.state_dict()


def test_weight_is_no_view_of_the_users_tensor():
    given = torch.tensor([1.0, 2.0, 3.0])
    loss = Poly1CrossEntropyLoss(weight=given)
    given.zero_()
    assert loss.weight.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weight_moves_with_the_module(dtype):
    loss = Poly1CrossEntropyLoss(weight=[1.0, 2.0, 3.0]).to(dtype)
    assert loss.weight.dtype == dtype
    assert loss(INPUT.to(dtype), TARGET).dtype == dtype
    # Weights in another dtype than the logits, as under bf16-true, are no reason to stop.
    torch.testing.assert_close(loss(INPUT, TARGET), Poly1CrossEntropyLoss(weight=[1.0, 2.0, 3.0])(INPUT, TARGET))


def test_on_the_meta_device_everything_has_a_shape_and_a_name():
    loss = Poly1CrossEntropyLoss(weight=[1.0, 2.0, 3.0], reduction="none").to("meta")
    result = loss(torch.randn(5, 3, device="meta"), torch.zeros(5, dtype=torch.int64, device="meta"))
    assert result.is_meta
    assert result.shape == (5,)
    assert "epsilon=1.0" in repr(loss)
    assert copy.deepcopy(loss).weight.is_meta
    with torch.device("meta"):  # no checkpoint would fill the weights
        assert Poly1CrossEntropyLoss(weight=[1.0, 2.0, 3.0]).weight.tolist() == [1.0, 2.0, 3.0]


def test_repr_shows_the_options_and_the_epsilon_in_force():
    loss = Poly1CrossEntropyLoss(weight=[1.0, 0.5, 2.0], ignore_index=0, label_smoothing=0.1)
    loss.epsilon = -0.5
    assert repr(loss) == (
        "Poly1CrossEntropyLoss(epsilon=-0.5, weight=[1.0, 0.5, 2.0], ignore_index=0, reduction='mean', "
        "label_smoothing=0.1, num_terms=None)"
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reduction": "average"}, ValueError, "`reduction` must be one of .* got 'average'"),
        ({"label_smoothing": 1.01}, ValueError, r"`label_smoothing` must be in \[0, 1\], got 1.01"),
        ({"label_smoothing": math.nan}, ValueError, "`label_smoothing` .* got nan"),
        ({"label_smoothing": True}, TypeError, "`label_smoothing` .* got True"),
        ({"ignore_index": True}, TypeError, "`ignore_index` .* got True"),
        ({"label_smoothing": "0.1"}, TypeError, "`label_smoothing` .* got '0.1'"),
        ({"ignore_index": 1.5}, TypeError, "`ignore_index` .* got 1.5"),
        ({"ignore_index": "0"}, TypeError, "`ignore_index` .* got '0'"),
        ({"num_terms": 0}, ValueError, "`num_terms` .* got 0"),
        ({"num_terms": 2.0}, TypeError, "`num_terms` .* got 2.0"),
        ({"weight": [1.0, -1.0]}, ValueError, r"`weight` must hold finite numbers .* got \[1.0, -1.0\]"),
        ({"weight": [1.0, math.nan]}, ValueError, r"`weight` must hold finite numbers .* nan"),
        ({"weight": torch.tensor([1.0, math.inf])}, ValueError, r"`weight` must hold finite numbers .* inf"),
        ({"weight": [[1.0], [2.0]]}, ValueError, r"`weight` must have shape \(C\).* got shape \(2, 1\)"),
        ({"weight": 2.0}, ValueError, r"`weight` must have shape \(C\).* got shape \(\)"),
        ({"weight": "balanced"}, TypeError, "`weight` must be None, .* got 'balanced'"),
        ({"weight": [None, 1.0]}, TypeError, r"`weight` must be None, .* got \[None, 1.0\]"),
        ({"weight": {"a": 1.0}}, TypeError, "`weight` must be None, .* got {'a': 1.0}"),
        ({"weight": [[1.0], [1.0, 2.0]]}, TypeError, "`weight` must be None, .* got"),
    ],
)
def test_bad_options_are_refused_by_name_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        Poly1CrossEntropyLoss(**options)


def test_numbers_of_numpy_are_numbers():
    options = {"ignore_index": np.int64(1), "label_smoothing": np.float32(0.25)}
    expected = Poly1CrossEntropyLoss(np.float64(2.0), ignore_index=1, label_smoothing=0.25)(INPUT, TARGET)
    assert torch.equal(Poly1CrossEntropyLoss(2.0, **options)(INPUT, TARGET), expected)
