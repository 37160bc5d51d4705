"""What a search compares: the settings, the baseline, the controls and the seeds."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import yaml

from polyloss_lightning.search.comparison import Mode

Phase: TypeAlias = Literal["explore", "confirm"]


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
        name: short name, for tables and figures.
        value: what the objective is called with.
        phrase: its name in a sentence; empty uses the name.
        grid: name of the axis on which the setting lies, such as ``"epsilon"``; empty if it lies on none.
        position: its number on that axis.
    """

    name: str
    value: Any
    phrase: str = ""
    grid: str = ""
    position: float | None = None

    @property
    def text(self) -> str:
        """Its value as text, for comparing two plans."""
        if isinstance(self.value, Mapping):
            return str(yaml.safe_dump(_plain(self.value), sort_keys=False))
        return re.sub(r" at 0x[0-9a-f]+", "", repr(self.value))  # the address of an object differs between processes


class Pair(NamedTuple):
    """One run: a phase, the name of a setting, and a seed."""

    phase: Phase
    setting: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """What a search compares.

    Attributes:
        settings: all settings, including the baseline and the controls.
        baseline: name of the setting to improve on.
        controls: groups of names of other settings that the pick has to beat; the best of each group is confirmed.
        explore_seeds: number of seeds on which the pick is made, 0 to ``explore_seeds - 1``.
        monitor: name of the metric that decides; None if the objective returns a number.
        mode: whether a large or a small value is good; None decides by the name of the metric (``"max"`` for a plain
            number). Without ``monitor``, it applies to a plain number only.
        notes: sentences about the plan that belong to the answer.
        command: the command line that reproduces the search, if there is one.
    """

    settings: tuple[Setting, ...]
    baseline: str
    controls: tuple[tuple[str, ...], ...] = ()
    explore_seeds: int = 3
    monitor: str | None = None
    mode: Mode | None = "max"
    notes: tuple[str, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        names = [setting.name for setting in self.settings]
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"the names of the settings must be strings, got {name!r}")
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"each setting needs its own name, got {duplicates} several times")
        for name in (self.baseline, *(name for group in self.controls for name in group)):
            if name not in names:
                raise ValueError(f"the baseline and the controls must be among the settings {names}, got {name!r}")
        if not self.candidates:
            raise ValueError("a search needs at least one setting other than the baseline and the controls, got none")
        if self.explore_seeds < 1:
            raise ValueError(f"`explore_seeds` must be at least 1, got {self.explore_seeds}")
        if self.mode not in ("max", "min") and not (self.mode is None and self.monitor is None):
            raise ValueError(f"`mode` must be 'max' or 'min', got {self.mode!r}")

    def __getitem__(self, name: str) -> Setting:
        return next(setting for setting in self.settings if setting.name == name)

    @property
    def candidates(self) -> tuple[Setting, ...]:
        """The settings that can be picked."""
        others = {self.baseline, *(name for group in self.controls for name in group)}
        return tuple(setting for setting in self.settings if setting.name not in others)

    @property
    def explore(self) -> list[Pair]:
        """The runs of the first phase, seed by seed, so that every setting has runs early."""
        return [Pair("explore", s.name, seed) for seed in range(self.explore_seeds) for s in self.settings]

    def confirm(self, names: Collection[str], number: int) -> list[Pair]:
        """Return the runs of the second phase: ``names`` on ``number`` fresh seeds."""
        first = self.explore_seeds
        return [Pair("confirm", name, seed) for seed in range(first, first + number) for name in names]

    def number_of_runs(self, confirm_seeds: int) -> int:
        """Return the number of runs of both phases."""
        return len(self.explore) + (2 + len(self.controls)) * confirm_seeds

    def texts(self) -> dict[str, str]:
        """Return all that must not change while a study grows, as text by name."""
        design = {
            "baseline": self.baseline,
            "controls": [list(group) for group in self.controls],
            "explore_seeds": self.explore_seeds,
            "monitor": self.monitor,
            "mode": self.mode,
        }
        return {
            "design": yaml.safe_dump(design, sort_keys=False),
            **{f"setting {setting.name}": setting.text for setting in self.settings},
        }


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    r"""Return the lines in which two :meth:`Plan.texts` differ; empty if they are equal.

    Example:
        >>> print(difference({"design": "mode: max\n"}, {"design": "mode: min\n"}))
        design:
        -mode: max
        +mode: min
    """
    parts: list[str] = []
    shown: set[str] = set()
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name, "").splitlines(), new.get(name, "").splitlines()
        lines = [line for line in difflib.unified_diff(before, after, n=0, lineterm="") if not _is_header(line)]
        changed = "\n".join(lines)
        # A change of the config is in every setting; once is enough.
        if lines and changed not in shown:
            parts += [f"{name}:", changed]
            shown.add(changed)
    return "\n".join(parts)


def _is_header(line: str) -> bool:
    return line.startswith(("---", "+++", "@@"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
