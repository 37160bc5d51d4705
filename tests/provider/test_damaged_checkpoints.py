"""Checkpoints with a damaged, hostile or later entry of the mixin: one error or warning, and no foreign code."""

import builtins
import math
from collections import OrderedDict

import pytest
import torch
from lightning.pytorch import LightningModule

from polyloss_lightning import LossProvider, Poly1CrossEntropyLoss
from polyloss_lightning.provider import CHECKPOINT_KEY


class Net(LossProvider, LightningModule):
    pass


def entry(**changes):
    """The entry of a checkpoint of Poly1CrossEntropyLoss; ``arguments`` are added to those of the loss."""
    checkpoint = {}
    Net(loss_fn=Poly1CrossEntropyLoss(2.0, weight=[1.0, 2.0])).on_save_checkpoint(checkpoint)
    loss = checkpoint[CHECKPOINT_KEY]["loss_fn"]
    arguments = {**loss["arguments"], **changes.pop("arguments", {})}
    return {"version": 1, "loss_fn": {**loss, "arguments": arguments, **changes}}


def without(key, level="loss_fn"):
    damaged = entry()
    del (damaged[level] if level else damaged)[key]
    return damaged


def nested(depth):
    value = [1.0]
    for _ in range(depth):
        value = [value]
    return value


DAMAGED = {
    # the entry
    "None": None,
    "a number": 3,
    "text": "loss",
    "bytes": b"\0\0",
    "a list": [1, 2],
    "a tensor": torch.ones(3),
    "an empty dict": {},
    "no version": without("version", None),
    "no loss": without("loss_fn", None),
    "version as text": {**entry(), "version": "1"},
    "a version of None": {**entry(), "version": None},
    "a boolean version": {**entry(), "version": True},
    "a fractional version": {**entry(), "version": 1.0},
    "version 0": {**entry(), "version": 0},
    "a negative version": {**entry(), "version": -1},
    "a version of NaN": {**entry(), "version": math.nan},
    # the loss
    "loss None": {"version": 1, "loss_fn": None},
    "loss as text": {"version": 1, "loss_fn": "Poly1CrossEntropyLoss"},
    "loss as list": {"version": 1, "loss_fn": [("class", "Poly1CrossEntropyLoss")]},
    "an empty loss": {"version": 1, "loss_fn": {}},
    "keys of the loss are numbers": {"version": 1, "loss_fn": {0: 1}},
    "no class": without("class"),
    "class None": entry(**{"class": None}),
    "class as bytes": entry(**{"class": b"Poly1CrossEntropyLoss"}),
    "class as list": entry(**{"class": ["Poly1CrossEntropyLoss"]}),
    "an empty class": entry(**{"class": ""}),
    # the arguments
    "no arguments": without("arguments"),
    "arguments None": {"version": 1, "loss_fn": {**entry()["loss_fn"], "arguments": None}},
    "arguments as list": {"version": 1, "loss_fn": {**entry()["loss_fn"], "arguments": [2.0]}},
    "names of arguments are numbers": entry(arguments={0: 2.0}),
    "weight as text": entry(arguments={"weight": "1, 2"}),
    "weight as bytes": entry(arguments={"weight": b"12"}),
    "weight as dict": entry(arguments={"weight": {"0": 1.0}}),
    "a set": entry(arguments={"weight": {1.0, 2.0}}),
    "an object": entry(arguments={"weight": object()}),
    "a function": entry(arguments={"weight": print}),
    "weight negative": entry(arguments={"weight": torch.tensor([-1.0, 2.0])}),
    "weight NaN": entry(arguments={"weight": torch.tensor([math.nan, 2.0])}),
    "weight complex": entry(arguments={"weight": torch.ones(2, dtype=torch.complex64)}),
    "weight of two dimensions": entry(arguments={"weight": torch.ones(2, 2)}),
    "weight a scalar": entry(arguments={"weight": torch.tensor(1.0)}),
    "weight ragged": entry(arguments={"weight": [[1.0], [1.0, 2.0]]}),
    "weight nested too deep": entry(arguments={"weight": nested(100_000)}),
    "reduction unknown": entry(arguments={"reduction": "median"}),
    "reduction as number": entry(arguments={"reduction": 3}),
    "smoothing above 1": entry(arguments={"label_smoothing": 1.5}),
    "smoothing as text": entry(arguments={"label_smoothing": "0.1"}),
    "ignore_index as text": entry(arguments={"ignore_index": "x"}),
    "num_terms negative": entry(arguments={"num_terms": -3}),
    "num_terms as text": entry(arguments={"num_terms": "all"}),
    "initial epsilon None": entry(arguments={"epsilon": None}),
    # the current epsilon
    "no epsilon": without("epsilon"),
    "epsilon None": entry(epsilon=None),
    "epsilon as text": entry(epsilon="1"),
    "epsilon as bytes": entry(epsilon=b"\1"),
    "epsilon boolean": entry(epsilon=True),
    "epsilon NaN": entry(epsilon=math.nan),
    "epsilon infinite": entry(epsilon=-math.inf),
    "epsilon too large for a float": entry(epsilon=10**400),
    "epsilon complex": entry(epsilon=1j),
    "epsilon as tensor": entry(epsilon=torch.tensor([1.0, 2.0])),
    "epsilon as dict": entry(epsilon={"0": 1.0}),
    "epsilon empty": entry(epsilon=[]),
    "epsilon with NaN": entry(epsilon=[1.0, math.nan]),
    "epsilon nested": entry(epsilon=[[1.0]]),
    "epsilon with text": entry(epsilon=[1.0, "2"]),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.condition("LossProvider", "damaged checkpoint", refused="one error names the key of the checkpoint")
def test_a_damaged_entry_is_one_error_that_names_the_key(damaged):
    net = Net()
    before = net.loss_fn
    with pytest.raises(ValueError, match=r"^The entry 'polyloss_lightning' of the checkpoint is damaged") as error:
        net.on_load_checkpoint({CHECKPOINT_KEY: damaged})
    assert len(str(error.value)) < 600
    assert net.loss_fn is before
    assert net.loss_fn.epsilon == 1.0


@pytest.mark.parametrize("epsilon", [None, "1", math.nan, 10**400, [], [1.0, "2"]])
def test_a_damaged_epsilon_is_an_error_for_the_same_loss_too(epsilon):
    net = Net(loss_fn=Poly1CrossEntropyLoss(2.0, weight=[1.0, 2.0]))
    with pytest.raises(ValueError, match="'polyloss_lightning' of the checkpoint is damaged"):
        net.on_load_checkpoint({CHECKPOINT_KEY: entry(epsilon=epsilon)})
    assert net.loss_fn.epsilon == 2.0


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "PolyLoss", "torch.nn.Linear", "antigravity", "../x", "losses.cross_entropy"]
)
def test_a_class_that_is_not_ours_is_neither_imported_nor_built(name, monkeypatch):
    imported = []
    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: imported.append(name) or real(name, *rest))
    net = Net()
    with pytest.warns(UserWarning, match="cannot be rebuilt from the checkpoint"):
        net.on_load_checkpoint({CHECKPOINT_KEY: entry(**{"class": name}, arguments={"command": "false"})})
    assert isinstance(net.loss_fn, Poly1CrossEntropyLoss)
    assert name.split(".")[0] not in {module.split(".")[0] for module in imported} - {"torch", "builtins"}


def test_an_argument_of_a_later_version_is_one_warning():
    later = entry(arguments={"temperature": 2.0})
    net = Net()
    with pytest.warns(
        UserWarning, match=r"has arguments of a later version of polyloss_lightning \(temperature\)"
    ) as seen:
        net.on_load_checkpoint({CHECKPOINT_KEY: later})
    assert len(seen) == 1
    assert net.loss_fn.epsilon == 1.0
    given = Net(loss_fn=Poly1CrossEntropyLoss(2.0, weight=[1.0, 2.0]))
    with pytest.warns(UserWarning, match="differs from the loss given to this module"):
        given.on_load_checkpoint({CHECKPOINT_KEY: later})


def test_the_entry_of_a_later_version_may_contain_anything():
    with pytest.warns(UserWarning, match="was saved in format 2"):
        Net().on_load_checkpoint({CHECKPOINT_KEY: {"version": 2, "losses": [1, 2]}})


def test_an_ordered_dict_and_keys_of_a_later_minor_version_are_no_damage():
    net = Net()
    net.on_load_checkpoint({CHECKPOINT_KEY: OrderedDict(entry(), comment="new")})
    assert net.loss_fn.epsilon == 2.0


def test_a_warning_about_many_class_weights_is_short():
    many = entry(arguments={"weight": torch.ones(100_000)})
    with pytest.warns(UserWarning, match=r"weight=<tensor of shape \(100000,\)>") as seen:
        Net(loss_fn=Poly1CrossEntropyLoss(1.0)).on_load_checkpoint({CHECKPOINT_KEY: many})
    assert len(str(seen[0].message)) < 600
