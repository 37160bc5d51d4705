"""Keeps the plan of a search in its study, and compares a new plan with it."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING

import yaml

from polyloss_lightning.search.plan import Plan, Setting, difference

if TYPE_CHECKING:
    from optuna import Study

_VERSION = 1
_TEXT = "text: "


def keep_plan(study: Study, plan: Plan, confirm_seeds: int) -> int:
    """Write ``plan`` into a new study, or compare it with the plan of an existing one.

    Returns:
        The number of confirm seeds: the larger one of the study's and the given one.

    Raises:
        ValueError: if the study has another plan; the message contains the difference.
    """
    texts = plan.texts()
    stored = study.user_attrs
    if "plan" in stored:
        changed = difference(_texts(study), texts)
        if changed:
            raise ValueError(
                f"the study {study.study_name!r} was made with other settings. Choose another study, or undo this "
                f"change:\n{changed}"
            )
        confirm_seeds = max(int(stored["confirm_seeds"]), confirm_seeds)
    else:
        for name, text in texts.items():  # one by one, because some databases limit the length
            study.set_user_attr(_TEXT + name, text)
        study.set_user_attr("settings", [[s.name, s.phrase, s.grid, s.position] for s in plan.settings])
        study.set_user_attr("notes", list(plan.notes))
        study.set_user_attr("command", plan.command)
        study.set_user_attr("versions", _versions())
    study.set_user_attr("confirm_seeds", confirm_seeds)
    study.set_user_attr("plan", _VERSION)  # last, so that a plan is complete or absent
    return confirm_seeds


def load_plan(study: Study) -> tuple[Plan, int]:
    """Return the plan of a study, with texts as values of the settings, and its number of confirm seeds.

    Raises:
        ValueError: if the study has no plan, or one of a newer version.
    """
    stored = study.user_attrs
    if stored.get("plan") != _VERSION:
        raise ValueError(
            f"cannot read the study {study.study_name!r}: it has plan format {stored.get('plan')}, this version reads "
            f"format {_VERSION}"
        )
    texts = _texts(study)
    design = yaml.safe_load(texts["design"])
    design["controls"] = tuple(map(tuple, design["controls"]))
    settings = tuple(Setting(name, texts[f"setting {name}"], *rest) for name, *rest in stored["settings"])
    return Plan(settings, notes=tuple(stored["notes"]), command=stored["command"], **design), int(
        stored["confirm_seeds"]
    )


def was_looked_at(study: Study, runs: int) -> bool:
    """Return whether an answer was given when this number of runs on confirm seeds was complete."""
    return runs in study.user_attrs.get("looks", [])


def look_number(study: Study, runs: int, *, register: bool) -> int:
    """Return how often the confirm seeds have been looked at, counting this time.

    Args:
        study: the study.
        runs: number of complete runs on confirm seeds. Looking again at the same number does not count.
        register: remember this look.
    """
    looks: list[int] = study.user_attrs.get("looks", [])
    if runs not in looks:
        looks = [*looks, runs]
        if register:
            study.set_user_attr("looks", looks)
    return looks.index(runs) + 1


def _versions() -> dict[str, str]:
    packages = ("polyloss-lightning", "torch", "lightning", "optuna", "scipy", "numpy")
    found = {name: metadata.version(name) for name in packages if _is_installed(name)}
    return {"python": platform.python_version(), **found}


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _texts(study: Study) -> dict[str, str]:
    # In the order of the settings: databases return the attributes in any order.
    stored = study.user_attrs
    names = ["design", *(f"setting {name}" for name, *_ in stored["settings"])]
    return {name: stored[_TEXT + name] for name in names}
