"""The page of a search, beside the complete one in test_command.py."""

import random

import pytest

from polyloss_lightning.search import Setting, search
from polyloss_lightning.search.report import write_report
from polyloss_lightning.search.report.data import read_report
from polyloss_lightning.search.report.training_figures import training_figures
from polyloss_lightning.search.storage import Location


def study_of(folder, names, phrase=""):
    """Search among settings with these names, of which the first one is the baseline."""
    settings = [Setting(name, float(gain), phrase, "epsilon", float(gain)) for gain, name in enumerate(names)]
    location = Location(folder / "study", f"journal:{folder}/log")
    search(
        lambda gain, seed: gain + random.Random(f"{gain} {seed}").gauss(0, 0.1),
        settings,
        baseline=names[0],
        explore_seeds=1,
        confirm_seeds=2,
        study=location.folder,
        storage=location.storage,
        write=lambda line: None,
    )
    return location


def test_dollar_signs_in_names_are_no_formula(folder):
    page, _ = write_report(study_of(folder, ["0", "cost $5_{ and $6"]))
    assert "cost $5_{ and $6" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("phrase", "drawn"), [("focal loss", False), ("cross-entropy", True)])
def test_the_formula_of_cross_entropy_is_drawn_for_it_only(folder, phrase, drawn):
    report = read_report(study_of(folder, ["0", "1"], phrase).open())
    assert ("losses" in [figure.name for figure in training_figures(report)]) == drawn
