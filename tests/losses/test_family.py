"""What holds for every loss: one list, and everything that a loss module must do."""

import copy
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch.utils._python_dispatch import TorchDispatchMode

import polyloss_lightning as poly
from polyloss_lightning import PolyLoss, polynomial
from polyloss_lightning.terms import terms

CLASSES = 4
WEIGHT = [0.5, 2.0, 0.0, 3.0]


@dataclass
class Member:
    """A loss as a module and as a function, with options and a kind of target."""

    module: type[PolyLoss]
    function: Any
    target: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self):
        return "-".join([self.module.__name__.removeprefix("Poly1"), self.target, *self.options])

    def build(self, epsilon=2.0, **options):
        return self.module(epsilon, **{**self.options, **options})

    def call(self, input, target, epsilon=2.0, **options):
        options = {**self.options, **options}
        tensors = {k: torch.tensor(v) for k, v in options.items() if isinstance(v, list)}
        return self.function(input, target, epsilon, **{**options, **tensors})

    def batch(self, n=6, dtype=torch.float64):
        input = 2 * torch.randn(n, CLASSES, dtype=dtype)
        target = {
            "index": lambda: torch.randint(CLASSES, (n,)).where(torch.arange(n) != 1, -100),
            "soft": lambda: torch.randn(n, CLASSES, dtype=dtype).softmax(1),
            "multi_hot": lambda: torch.rand(n, CLASSES).round().to(dtype).where(torch.arange(n)[:, None] != 1, -100),
            "dense": lambda: torch.rand(n, CLASSES, dtype=dtype),
        }
        return input, target[self.target]()


CE = (poly.Poly1CrossEntropyLoss, poly.poly1_cross_entropy)
FOCAL = (poly.Poly1FocalLoss, poly.poly1_focal_loss)
BCE = (poly.Poly1BCEWithLogitsLoss, poly.poly1_binary_cross_entropy_with_logits)
SIGMOID_FOCAL = (poly.Poly1SigmoidFocalLoss, poly.poly1_sigmoid_focal_loss)
FAMILY = [
    *(
        Member(*loss, target, options)
        for loss, focal in ((CE, {}), (FOCAL, {"gamma": 0.5}))
        for target in ("index", "soft")
        for options in ({}, {"weight": WEIGHT, "label_smoothing": 0.1, **focal}, {"num_terms": 3, **focal})
    ),
    *(
        Member(*BCE, target, options)
        for target in ("multi_hot", "dense")
        for options in ({}, {"weight": WEIGHT, "pos_weight": [3.0, 1.0, 0.0, 0.5]}, {"num_terms": 3})
    ),
    *(
        Member(*SIGMOID_FOCAL, target, options)
        for target in ("multi_hot", "dense")
        for options in (
            {},
            {"weight": WEIGHT, "alpha": -1, "gamma": 0.5},
            {"num_terms": 3, "gamma": 1},
            {"alpha": [0.1, 0.9, 0, 1]},
        )
    ),
    Member(*SIGMOID_FOCAL, "index", {"target_format": "class_index", "alpha": [0.1, 0.9, 0, 1], "gamma": 1.5}),
]
with_family = pytest.mark.parametrize("member", FAMILY, ids=str)


@with_family
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_module_equals_function(member, reduction):
    input, target = member.batch()
    for epsilon in (-1.0, 0.0, 1.5, [2.0, -0.5]):
        actual = member.build(epsilon, reduction=reduction)(input, target)
        assert torch.equal(actual, member.call(input, target, epsilon, reduction=reduction))


@with_family
@given(
    epsilon=st.lists(st.floats(-0.3, 5), min_size=1, max_size=3),
    scale=st.floats(0, 30),
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_the_loss_is_the_weighted_sum_over_its_observation(member, epsilon, scale, reduction):
    loss, seen = member.build(epsilon, reduction=reduction), []
    input, target = member.batch()
    with loss.register_observer(seen.append):
        value = loss(scale * input, target)
    (o,) = seen
    assert o.log_p.shape == o.weight.shape == o.target.shape == (o.log_p.numel(),)
    entries = polynomial.value(o.log_p, o.epsilon, o.gamma, o.num_terms, o.focal_base)
    torch.testing.assert_close((o.weight * entries).sum() / o.denominator, value)
    shown = terms(o.log_p, o.num_terms or 200, o.epsilon, o.gamma, o.focal_base)
    if o.num_terms is not None:
        torch.testing.assert_close((o.weight * shown).sum() / o.denominator, value)
    assert 0 <= o.target.min() <= o.target.max() < CLASSES
    assert o.weight.min() >= 0


@with_family
def test_base_loss_is_the_loss_at_epsilon_zero_with_every_term(member):
    input, target = member.batch()
    expected = member.build(0.0, num_terms=None)(input, target)
    torch.testing.assert_close(member.build(3.0).base_loss(input, target), expected)


@with_family
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies_compute_the_same_and_hold_nothing_of_the_state_dict(member, copied):
    loss = member.build()
    input, target = member.batch()
    loss(input.requires_grad_(), target).backward()
    assert torch.equal(copied(loss)(input, target), loss(input, target))
    assert not loss.state_dict()
    assert not list(loss.parameters())


@with_family
def test_arguments_build_the_same_loss_again(member):
    loss = member.build([2.0, -0.5])
    input, target = member.batch()
    again = type(loss)(**loss.arguments())
    assert torch.equal(again(input, target), loss(input, target))
    assert repr(again) == repr(loss)
    loss.epsilon = 1.0
    assert loss.arguments()["epsilon"] == [2.0, -0.5]


@with_family
def test_gradients_are_those_of_finite_differences(member):
    input, target = member.batch(3)
    input.requires_grad_()
    loss = member.build([2.0, -0.5], reduction="sum")
    assert torch.autograd.gradcheck(lambda x: loss(x, target), input)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, target), input)


@with_family
def test_an_empty_batch_is_nan_as_mean_and_zero_as_sum(member):
    input, target = member.batch(0)
    input.requires_grad_()
    assert member.build()(input, target).isnan()
    assert member.build(reduction="sum")(input, target) == 0
    loss = member.build(reduction="none")(input, target)
    assert loss.shape[0] == 0
    loss.sum().backward()
    assert input.grad.shape == (0, CLASSES)


@with_family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_buffers_and_result_follow_to(member, dtype):
    loss = member.build().to(dtype)
    assert all(buffer.dtype == dtype for buffer in loss.buffers())
    input, target = member.batch(dtype=dtype)
    value = loss(input, target)
    assert value.dtype == dtype
    tolerance = {"rtol": 0.02, "atol": 0.02} if dtype != torch.float64 else {}
    target = target.double() if target.is_floating_point() else target
    torch.testing.assert_close(value.double(), member.build()(input.double(), target), **tolerance)


@with_family
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_meta_tensors_have_the_shape_and_dtype_of_the_loss(member, reduction):
    loss = member.build(reduction=reduction)
    input, target = member.batch()
    real = loss(input, target)
    result = loss.to("meta")(input.to("meta"), target.to("meta"))
    assert result.is_meta
    assert (result.shape, result.dtype) == (real.shape, real.dtype)


class NothingWaits(TorchDispatchMode):
    """Fails on operators that take data from the host, or a number or shape from the device: on CUDA they wait."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        waits = {"lift_fresh", "_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"}
        assert operator.overloadpacket.__name__ not in waits, operator
        return operator(*args, **(kwargs or {}))


@with_family
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("device", ["cpu", "meta"])  # a meta tensor has no number to read and meets no host tensor
def test_no_step_waits_for_the_device(member, reduction, device):
    loss = member.build(reduction=reduction).to(device)
    input, target = (tensor.to(device) for tensor in member.batch())
    input.requires_grad_()
    with NothingWaits():
        loss(input, target).sum().backward()
        loss.base_loss(input, target)


@pytest.mark.parametrize("module", [BCE[0], SIGMOID_FOCAL[0]])
@pytest.mark.parametrize("shape", [(), (4,), (4, 1)])
def test_no_step_with_one_logit_a_sample_waits(module, shape):
    input, target = torch.randn(shape, requires_grad=True), torch.rand(shape)
    with NothingWaits():
        module()(input, target).backward()


if torch.cuda.is_available():

    @with_family
    def test_no_step_waits_for_the_gpu(member):
        loss = member.build().cuda()
        input, target = (tensor.cuda() for tensor in member.batch())
        input.requires_grad_()
        torch.cuda.set_sync_debug_mode("error")
        try:
            loss(input, target).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@with_family
def test_a_loss_comes_out_of_yaml(member):
    parser = ArgumentParser()
    parser.add_subclass_arguments(PolyLoss, "loss")
    options = {"epsilon": [2.0, -0.5], "reduction": "sum", **member.options}
    given = {"loss": {"class_path": f"polyloss_lightning.{member.module.__name__}", "init_args": options}}
    loss = parser.instantiate_classes(parser.parse_object(given)).loss
    input, target = member.batch()
    assert torch.equal(loss(input, target), member.call(input, target, [2.0, -0.5], reduction="sum"))


@pytest.mark.parametrize("module", [poly.Poly1BCEWithLogitsLoss, poly.Poly1SigmoidFocalLoss, poly.Poly1FocalLoss])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reduction": "average"}, ValueError, "`reduction` .* got 'average'"),
        ({"ignore_index": 0.5}, TypeError, "`ignore_index` .* got 0.5"),
        ({"ignore_index": True}, TypeError, "`ignore_index` .* got True"),
        ({"num_terms": 0}, ValueError, "`num_terms` .* got 0"),
        ({"weight": [1.0, -1.0]}, ValueError, r"`weight` must hold finite numbers .* got \[1.0, -1.0\]"),
        ({"weight": "balanced"}, TypeError, "`weight` must be None, .* got 'balanced'"),
        ({"epsilon": torch.inf}, ValueError, "`epsilon` .* got inf"),
    ],
)
def test_bad_options_are_refused_by_name_at_construction(module, options, error, message):
    with pytest.raises(error, match=message):
        module(**options)


@pytest.mark.parametrize(
    ("module", "options", "error", "message"),
    [
        (poly.Poly1FocalLoss, {"gamma": -1}, ValueError, "`gamma` .* got -1"),
        (poly.Poly1FocalLoss, {"gamma": None}, TypeError, "`gamma` .* got None"),
        (poly.Poly1FocalLoss, {"label_smoothing": 2}, ValueError, "`label_smoothing` .* got 2"),
        (poly.Poly1FocalLoss, {"label_smoothing": True}, TypeError, "`label_smoothing` .* got True"),
        (poly.Poly1SigmoidFocalLoss, {"gamma": torch.nan}, ValueError, "`gamma` .* got nan"),
        (poly.Poly1SigmoidFocalLoss, {"alpha": 1.5}, ValueError, "`alpha` .* got 1.5"),
        (poly.Poly1SigmoidFocalLoss, {"alpha": "auto"}, TypeError, "`alpha` .* got 'auto'"),
        (poly.Poly1SigmoidFocalLoss, {"alpha": None}, TypeError, "`alpha` .* got None"),
        (poly.Poly1SigmoidFocalLoss, {"alpha": True}, TypeError, "`alpha` .* got True"),
        (poly.Poly1SigmoidFocalLoss, {"alpha": [0.5, True]}, TypeError, r"`alpha\[1\]` .* got True"),
        (poly.Poly1SigmoidFocalLoss, {"alpha": [0.5, -1]}, ValueError, r"`alpha` .* got \[0.5, -1.0\]"),
        (poly.Poly1SigmoidFocalLoss, {"alpha": [0.5, torch.nan]}, ValueError, r"`alpha\[1\]` .* nan"),
        (poly.Poly1SigmoidFocalLoss, {"alpha": []}, ValueError, "`alpha` .* got an empty sequence"),
        (poly.Poly1SigmoidFocalLoss, {"alpha": torch.ones(2, 1)}, ValueError, r"`alpha` .* got shape \(2, 1\)"),
        (poly.Poly1SigmoidFocalLoss, {"target_format": "index"}, ValueError, "`target_format` .* got 'index'"),
        (poly.Poly1BCEWithLogitsLoss, {"pos_weight": [-1.0]}, ValueError, r"`pos_weight` .* got \[-1.0\]"),
    ],
)
def test_bad_options_of_one_loss_are_refused_by_name_at_construction(module, options, error, message):
    with pytest.raises(error, match=message):
        module(**options)
