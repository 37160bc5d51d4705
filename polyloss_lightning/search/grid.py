"""The settings and controls of ``polyloss search``, from the options of its command line."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from polyloss_lightning.search.config import (
    Config,
    base_loss_name,
    has_scheduler,
    uses_polyloss,
    with_epsilon,
    with_learning_rate,
    without_idle_callbacks,
)
from polyloss_lightning.search.plan import Setting

EPSILONS = (-1.0, -0.5, 0.0, 1.0, 2.0, 4.0)
SCHEDULE = (-1.0, 2.0)
LEARNING_RATE_FACTORS = (0.5, 2.0, 3.0)
BASELINE = "epsilon 0"

Epsilon: TypeAlias = float | tuple[float, float]  # a constant, or first and last value of a schedule
# Resolves the config with further arguments of the command line.
Resolve = Callable[[Sequence[str]], Config]


@dataclass(frozen=True)
class Grid:
    """What is compared, as options of the command line.

    Attributes:
        epsilons: constant epsilons.
        schedules: first and last values of linear schedules.
        vary: ``KEY=VALUE,VALUE,...`` for any key of the config. Several keys, and epsilons, are combined.
        learning_rate_factors: the baseline at these multiples of its learning rate is a group of controls.
        controls: ``KEY=VALUE``: the baseline with this change is a control.

    Raises:
        ValueError: if an epsilon or a factor is out of range.
    """

    epsilons: Sequence[float] = ()
    schedules: Sequence[tuple[float, float]] = ()
    vary: Sequence[str] = ()
    learning_rate_factors: Sequence[float] = LEARNING_RATE_FACTORS
    controls: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, numbers in (("epsilon", self.epsilons), ("schedule", itertools.chain.from_iterable(self.schedules))):
            for number in numbers:
                if not math.isfinite(number):
                    raise ValueError(f"`{name}` must be finite, got {number}")
        for factor in self.learning_rate_factors:
            if not (math.isfinite(factor) and factor > 0):
                raise ValueError(f"`learning_rate_factors` must be finite and above 0, got {factor}")

    @property
    def epsilons_and_schedules(self) -> list[Epsilon]:
        """All epsilons; the default ones if nothing is varied."""
        if self.epsilons or self.schedules or self.vary:
            return [*self.epsilons, *self.schedules]
        return [*EPSILONS, SCHEDULE]


def settings_of(grid: Grid, resolve: Resolve) -> tuple[list[Setting], list[tuple[str, ...]], list[str]]:
    """Return the settings (the baseline first), the groups of controls, and notes about them.

    Raises:
        ValueError: if an option is not ``KEY=VALUE``, or its value is not valid YAML.
    """
    config = resolve([])
    plain = with_epsilon(config, 0.0)
    base = base_loss_name(plain)
    settings = [Setting(BASELINE, plain, base, "epsilon", 0.0)]
    axes = [
        [(key, value) for value in values]
        for key, values in (_split("vary", option, many=True) for option in grid.vary)
    ]
    epsilons: list[Epsilon | None] = [*grid.epsilons_and_schedules] or [None]
    for changes in itertools.product(*axes):
        changed = resolve([_argument(key, value) for key, value in changes]) if changes else config
        names = [_name(key, value) for key, value in changes]
        for epsilon in epsilons:
            candidate = without_idle_callbacks(changed) if epsilon is None else with_epsilon(changed, epsilon)
            if candidate != plain and candidate not in (setting.value for setting in settings):
                settings.append(_setting(candidate, names, changes, epsilon))
    controls: list[tuple[str, ...]] = []
    factors = [
        Setting(
            f"{BASELINE}, learning rate x {factor:g}",
            with_learning_rate(plain, factor),
            f"{base} at {factor:g} times the learning rate",
        )
        for factor in grid.learning_rate_factors
    ]
    others = []
    for key, value in (_split("control", option) for option in grid.controls):
        changed, name = resolve([_argument(key, value)]), _name(key, value)
        others.append(Setting(f"{BASELINE}, {name}", with_epsilon(changed, 0.0), f"{base} with {name}"))
    if factors:
        controls.append(tuple(setting.name for setting in factors))
    controls += [(setting.name,) for setting in others]
    return [*settings, *factors, *others], controls, _notes(config)


def _setting(
    config: Config,
    names: Sequence[str],
    changes: Sequence[tuple[str, Any]],
    epsilon: float | tuple[float, float] | None,
) -> Setting:
    if isinstance(epsilon, tuple):
        names = [*names, f"epsilon {epsilon[0]:g} to {epsilon[1]:g}"]
    elif epsilon is not None:
        names = [*names, f"epsilon {epsilon:g}"]
    grid, position = "", None
    if not changes and isinstance(epsilon, float | int):
        grid, position = "epsilon", float(epsilon)
    elif len(changes) == 1 and epsilon is None and isinstance(changes[0][1], float | int):
        grid, position = changes[0][0].rpartition(".")[2], float(changes[0][1])
    return Setting(", ".join(names), config, "", grid, position)


def _notes(config: Config) -> list[str]:
    notes = []
    if has_scheduler(config):
        notes.append("the config moves epsilon: settings with one epsilon, or none, train without its EpsilonScheduler")
    if not uses_polyloss(config):
        notes.append("the config has no loss of this package, so the settings use PolyLossOverride")
    return notes


def _split(name: str, option: str, *, many: bool = False) -> tuple[str, Any]:
    """Return key and value of the option ``name``; the list of values, which commas outside of brackets separate."""
    key, equals, text = option.partition("=")
    if not equals or not key or not text:
        raise ValueError(
            f"`{name}` must be KEY=VALUE, such as model.loss_fn.init_args.gamma=0,1,2, got {option!r}"
            if many
            else f"`{name}` must be KEY=VALUE, such as trainer.max_epochs=60, got {option!r}"
        )
    try:
        return key.removeprefix("--"), yaml.safe_load(f"[{text}]" if many else text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"`{name}` must be KEY=VALUE with a value in YAML, got {option!r}: {reason}") from None


def _argument(key: str, value: Any) -> str:
    return f"--{key}={value if isinstance(value, str) else json.dumps(value)}"


def _name(key: str, value: Any) -> str:
    path = value.get("class_path") if isinstance(value, dict) else value
    if isinstance(path, str):  # the class without its module
        path = path.rpartition(".")[2]
        arguments = value.get("init_args", {}) if isinstance(value, dict) else {}
        inside = ", ".join(f"{name}={argument}" for name, argument in arguments.items())
        return f"{key.rpartition('.')[2]}={path}" + (f"({inside})" if inside else "")
    return f"{key.rpartition('.')[2]}={json.dumps(value)}"
