"""Where a study is kept. (tests/search/test_workers.py has journals and a server.)"""

import random

import pytest

from polyloss_lightning.search import search, storage
from polyloss_lightning.search.report.data import read_report
from polyloss_lightning.search.storage import Location


def test_a_folder_that_was_renamed_keeps_its_study(folder):
    calls = []

    def objective(gain, seed):
        calls.append(seed)
        return gain + random.Random(f"{gain} {seed}").gauss(0, 0.1)

    def run(study):
        settings = {"0": 0.0, "1": 1.0}
        options = {"explore_seeds": 1, "confirm_seeds": 2, "study": study, "write": lambda line: None}
        return search(objective, settings, baseline="0", **options).sentence

    sentence = run(folder / "study")
    (folder / "study").rename(folder / "other")
    assert run(folder / "other") == sentence
    assert len(calls) == 6
    assert read_report(Location(folder / "other").open()).answer.sentence == sentence


@pytest.mark.parametrize("url", ["nonsense", "dialect://server/name", "sqlite:////no/such/folder/study.db"])
def test_a_storage_that_cannot_be_opened_is_one_line(folder, monkeypatch, url):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    with pytest.raises(ValueError, match=r"^the storage cannot be opened: .*$"):
        Location(folder, url).open("maximize")
