import contextlib
import io

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.schedules import (
    ConstantSchedule,
    CosineSchedule,
    CyclicSchedule,
    ExponentialSchedule,
    JoinedSchedule,
    LinearSchedule,
    PiecewiseSchedule,
    PolynomialSchedule,
)

SCHEDULES = [
    ConstantSchedule(2),
    ConstantSchedule([1, -0.5]),
    LinearSchedule(-1.0, 2.0),
    CosineSchedule([0.0, 1.0], [1.0, 0.0]),
    PolynomialSchedule(-1.0, 2.0, power=2),
    ExponentialSchedule(4.0, 1.0),
    ExponentialSchedule(-1.0, 2.0, rate=5),
    PiecewiseSchedule(-1.0, [0.5, 0.8], [0.0, 2.0], interpolation="linear"),
    PiecewiseSchedule([0.0, 1.0], [0.5], [[1.0, 0.0]]),
    CyclicSchedule(-1.0, 2.0, cycles=3, shape="cosine"),
    JoinedSchedule(
        [ConstantSchedule(-1.0), JoinedSchedule([LinearSchedule(-1.0, 2.0), CyclicSchedule(2.0, 1.0)], [0.25])], [0.5]
    ),
]


def as_config(schedule):
    arguments = {name: plain(value) for name, value in vars(schedule).items()}
    return {"class_path": f"polyloss_lightning.schedules.{type(schedule).__name__}", "init_args": arguments}


def plain(value):
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    return as_config(value) if hasattr(value, "value_at") else value


@pytest.fixture
def cli(seen_epsilon, tmp_path, monkeypatch):
    """Runs a LightningCLI app on a configuration file."""
    monkeypatch.chdir(tmp_path)

    def run(config, *arguments):
        (tmp_path / "config.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # lightning 2.6 calls what 4.53 deprecates
        monkeypatch.setattr("sys.argv", ["app", "--config", "config.yaml", *arguments])
        return LightningCLI(seen_epsilon, run=False, save_config_callback=None, seed_everything_default=1)

    return run


def config(schedule, **options):
    callback = {
        "class_path": "polyloss_lightning.callbacks.EpsilonScheduler",
        "init_args": {"schedule": as_config(schedule), **options},
    }
    trainer = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    return {"trainer": {**trainer, "max_epochs": 1, "enable_progress_bar": False, "callbacks": [callback]}}


def scheduler_of(app):
    (scheduler,) = (callback for callback in app.trainer.callbacks if isinstance(callback, EpsilonScheduler))
    return scheduler


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_schedule_goes_through_yaml_and_back(cli, schedule):
    assert scheduler_of(cli(config(schedule))).schedule == schedule


@pytest.mark.parametrize(
    "options",
    [
        {"interval": "epoch", "begin": 1, "end": 10},
        {"begin": 0.25, "end": 1.0},
        {"begin": 0, "end": 0.5},
        {"loss": "loss_fn", "total": 100, "prog_bar": True},
        {"loss": ["loss_fn", "heads.aux"], "log_epsilon": False},
    ],
    ids=str,
)
def test_the_options_keep_their_meaning_and_counts_stay_counts(cli, options):
    built = vars(scheduler_of(cli(config(LinearSchedule(-1.0, 2.0), **options))))
    direct = vars(EpsilonScheduler(LinearSchedule(-1.0, 2.0), **options))
    assert {name: built[name] for name in direct} == direct
    assert [type(built["window"].begin), type(built["window"].end)] == [
        type(options.get("begin", 0)),
        type(options.get("end")),
    ]


def test_the_printed_config_is_parsed_to_itself(cli):
    printed = []
    source = config(SCHEDULES[-1], begin=0.25, end=1.0)
    for _ in range(2):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            cli(source, "--print_config")
        source = out.getvalue()
        printed.append(source)
    assert printed[0] == printed[1]
    scheduler = scheduler_of(cli(printed[0]))
    assert scheduler.schedule == SCHEDULES[-1]
    assert scheduler.window.end == 1.0


@pytest.mark.condition("EpsilonScheduler", "LightningCLI, both namespaces")
def test_a_fit_from_yaml_moves_epsilon(cli):
    app = cli(config(LinearSchedule(-1.0, 2.0)))
    app.trainer.fit(app.model)
    assert app.model.seen == pytest.approx([-1.0, 0.0, 1.0, 2.0])
