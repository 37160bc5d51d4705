"""Whether a search looks for the largest or the smallest value."""

import random

import pytest

from polyloss_lightning.search import search
from polyloss_lightning.search.report.data import read_report
from polyloss_lightning.search.storage import Location


def number(value, seed):
    return value + random.Random(f"{value} {seed}").gauss(0, 0.1)


def metrics(value, seed):
    return {"val/loss": -value, "val/poly/base_loss": number(value, seed)}


def run(folder, objective, **options):
    return search(
        objective,
        {"base": 1.0, "large": 2.0, "small": 0.5},
        baseline="base",
        confirm_seeds=4,
        study=folder / "study",
        storage=f"journal:{folder}/log",
        write=lambda line: None,
        **options,
    )


@pytest.mark.parametrize(
    ("objective", "options", "pick"),
    [
        (number, {}, "large"),
        (number, {"mode": "max"}, "large"),
        (number, {"mode": "min"}, "small"),
        (metrics, {}, "small"),
        (metrics, {"mode": "max"}, "small"),  # a mode without a monitor is that of a plain number
        (metrics, {"monitor": "val/poly/base_loss"}, "small"),
        (metrics, {"monitor": "val/poly/base_loss", "mode": "max"}, "large"),
    ],
)
def test_the_pick_is_the_largest_or_the_smallest_value(folder, objective, options, pick):
    result = run(folder, objective, **options)
    assert (result.pick, result.comparison.verdict) == (pick, "better")
    assert read_report(Location(folder / "study", f"journal:{folder}/log").open()).answer.sentence == result.sentence


def test_a_study_of_the_other_mode_is_refused_with_the_difference(folder):
    run(folder, number, mode="max")
    with pytest.raises(ValueError, match="undo this change:\ndesign:\n-mode: max\n\\+mode: null"):
        run(folder, number)
