"""Settings from options, and the edits of a config behind them."""

import copy
import re

import pytest

from polyloss_lightning.search.config import (
    checkpoint_monitor,
    for_search,
    seed_keys,
    starts_processes,
    with_epsilon,
    with_seed,
    without_idle_callbacks,
)
from polyloss_lightning.search.grid import Grid, settings_of

LOSS = "polyloss_lightning.losses.Poly1CrossEntropyLoss"
SCHEDULER = {"class_path": "polyloss_lightning.callbacks.EpsilonScheduler", "init_args": {"schedule": {}}}
CHECKPOINT = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"monitor": "val/acc", "mode": "max"},
}


def config(loss=LOSS, model="polyloss_lightning.models.ImageClassifier", callbacks=(), **trainer):
    node = None if loss is None else {"class_path": loss, "init_args": {"epsilon": 1.0, "gamma": 0.0}}
    return {
        "seed_everything": 0,
        "model": {"class_path": model, "init_args": {"loss_fn": node}},
        "data": {"class_path": "polyloss_lightning.data.DigitsDataModule", "init_args": {"seed": 0}},
        "trainer": {"callbacks": copy.deepcopy(list(callbacks)), **trainer},
    }


def resolver(base):
    def resolve(arguments):
        changed = copy.deepcopy(base)
        for argument in arguments:
            key, value = argument.removeprefix("--").split("=", 1)
            changed.setdefault("changes", {})[key] = value
        return changed

    return resolve


def names(settings):
    return [setting.name for setting in settings]


def epsilon_of(setting):
    return setting.value["model"]["init_args"]["loss_fn"]["init_args"]["epsilon"]


def test_the_default_grid():
    settings, controls, _ = settings_of(Grid(), resolver(config()))
    assert names(settings)[:7] == [
        *("epsilon 0", "epsilon -1", "epsilon -0.5", "epsilon 1", "epsilon 2", "epsilon 4"),
        "epsilon -1 to 2",
    ]
    assert [epsilon_of(setting) for setting in settings[:7]] == [0.0, -1.0, -0.5, 1.0, 2.0, 4.0, -1.0]
    assert controls == [tuple(f"epsilon 0, learning rate x {factor}" for factor in ("0.5", "2", "3"))]
    assert settings[0].phrase == "cross-entropy"
    assert settings[-2].phrase == "cross-entropy at 2 times the learning rate"


def test_the_baseline_is_always_there_and_only_once():
    settings, _, _ = settings_of(Grid(epsilons=[2.0], learning_rate_factors=()), resolver(config()))
    assert names(settings) == ["epsilon 0", "epsilon 2"]
    settings, _, _ = settings_of(Grid(epsilons=[0.0, 2.0], learning_rate_factors=()), resolver(config()))
    assert names(settings) == ["epsilon 0", "epsilon 2"]


def test_keys_are_varied_and_combined_with_epsilons():
    grid = Grid(epsilons=[1.0, 2.0], vary=["model.loss_fn.init_args.gamma=0,1"], learning_rate_factors=())
    settings, _, _ = settings_of(grid, resolver(config()))
    expected = [f"gamma={gamma}, epsilon {epsilon}" for gamma in (0, 1) for epsilon in (1, 2)]
    assert names(settings) == ["epsilon 0", *expected]
    assert settings[-1].value["changes"] == {"model.loss_fn.init_args.gamma": "1"}


def test_whole_losses_are_varied():
    values = "torch.nn.CrossEntropyLoss,{class_path: a.Focal, init_args: {gamma: 2}}"
    settings, _, _ = settings_of(Grid(vary=[f"model.loss_fn={values}"], learning_rate_factors=()), resolver(config()))
    assert names(settings) == ["epsilon 0", "loss_fn=CrossEntropyLoss", "loss_fn=Focal(gamma=2)"]


def test_each_control_is_a_group_of_its_own():
    grid = Grid(learning_rate_factors=(), controls=["trainer.max_epochs=60", "data.batch_size=64"])
    settings, controls, _ = settings_of(grid, resolver(config()))
    assert controls == [("epsilon 0, max_epochs=60",), ("epsilon 0, batch_size=64",)]
    assert settings[-1].phrase == "cross-entropy with batch_size=64"


@pytest.mark.parametrize("option", ["gamma", "=1", "gamma=", "gamma=[1", "gamma={1: ]"])
@pytest.mark.parametrize("name", ["vary", "control"])
def test_options_without_key_or_valid_value(option, name):
    grid = Grid(vary=[option]) if name == "vary" else Grid(controls=[option])
    with pytest.raises(ValueError, match=rf"^`{name}` must be KEY=VALUE.* got {re.escape(repr(option))}"):
        settings_of(grid, resolver(config()))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(number):
    with pytest.raises(ValueError, match=f"`epsilon` must be finite, got {number}"):
        Grid(epsilons=[1.0, number])
    with pytest.raises(ValueError, match=f"`schedule` must be finite, got {number}"):
        Grid(schedules=[(0.0, number)])


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_learning_rate_factors_are_above_zero(factor):
    with pytest.raises(ValueError, match=f"`learning_rate_factors` must be finite and above 0, got {factor}"):
        Grid(learning_rate_factors=[2.0, factor])


def test_a_constant_epsilon_removes_the_scheduler_with_a_note():
    base = config(callbacks=[SCHEDULER, CHECKPOINT])
    settings, _, notes = settings_of(Grid(), resolver(base))
    assert settings[0].value["trainer"]["callbacks"] == [CHECKPOINT]
    (annealed,) = (setting for setting in settings if setting.name == "epsilon -1 to 2")
    schedule = annealed.value["trainer"]["callbacks"][-1]["init_args"]["schedule"]["init_args"]
    assert schedule == {"init_value": -1.0, "end_value": 2.0}
    assert any("train without its EpsilonScheduler" in note for note in notes)


def test_a_loss_of_torch_removes_the_callbacks_that_would_fail_with_it():
    monitor = {"class_path": "polyloss_lightning.callbacks.PolynomialTermMonitor", "init_args": {}}
    callbacks = [SCHEDULER, monitor, CHECKPOINT]
    without = without_idle_callbacks(config(loss="torch.nn.CrossEntropyLoss", callbacks=callbacks))
    assert without["trainer"]["callbacks"] == [CHECKPOINT]
    assert without_idle_callbacks(config(callbacks=callbacks))["trainer"]["callbacks"] == callbacks


def test_a_module_without_a_loss_gets_poly1_cross_entropy():
    edited = with_epsilon(config(loss=None), 2.0)
    assert edited["model"]["init_args"]["loss_fn"] == {"class_path": LOSS, "init_args": {"epsilon": 2.0}}


def test_a_module_of_others_gets_an_override():
    base = config(loss=None, model="lightning.pytorch.demos.boring_classes.BoringModel")
    edited = with_epsilon(base, 2.0)
    override = {"class_path": "polyloss_lightning.callbacks.PolyLossOverride", "init_args": {"epsilon": 2.0}}
    assert edited["trainer"]["callbacks"] == [override]
    assert any("PolyLossOverride" in note for note in settings_of(Grid(), resolver(base))[2])


def test_the_seed_reaches_the_data():
    base = config()
    seeded = with_seed(base, 7, seed_keys(base, None))
    assert (seeded["seed_everything"], seeded["data"]["init_args"]["seed"]) == (7, 7)
    assert base["seed_everything"] == 0
    assert seed_keys(base, "model.init_args.loss_fn") == ["model.init_args.loss_fn"]
    with pytest.raises(ValueError, match="no 'split'"):
        seed_keys(base, "data.init_args.split")


def test_a_run_prints_draws_and_logs_nothing(tmp_path):
    monitor = {"class_path": "polyloss_lightning.callbacks.PolynomialTermMonitor", "init_args": {"num_terms": 5}}
    bar = {"class_path": "lightning.pytorch.callbacks.RichProgressBar"}
    edited = for_search(config(callbacks=[monitor, bar, CHECKPOINT], logger=True), tmp_path)["trainer"]
    assert [node["class_path"].rpartition(".")[2] for node in edited["callbacks"]] == [
        "PolynomialTermMonitor",
        "ModelCheckpoint",
    ]
    assert edited["callbacks"][0]["init_args"] == {"num_terms": 5, "record": False, "figures": False}
    assert edited["callbacks"][1]["init_args"]["dirpath"].startswith(str(tmp_path))
    assert edited["logger"]["class_path"].endswith("DummyLogger")
    assert edited["enable_checkpointing"] is True


def test_monitor_of_the_checkpoint():
    assert checkpoint_monitor(config(callbacks=[SCHEDULER, CHECKPOINT])) == ("val/acc", "max")
    assert checkpoint_monitor(config()) is None


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"devices": "auto"}, False),
        ({"devices": 1, "strategy": "auto"}, False),
        ({"devices": 2}, True),
        ({"devices": [0, 1]}, True),
        ({"devices": 1, "num_nodes": 2}, True),
        ({"devices": "auto", "strategy": "ddp_spawn"}, True),
        ({"strategy": {"class_path": "lightning.pytorch.strategies.FSDPStrategy"}}, True),
    ],
)
def test_trainers_with_several_processes(trainer, expected):
    assert starts_processes(config(**trainer)) is expected
