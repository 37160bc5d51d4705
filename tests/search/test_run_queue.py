"""Runs of a study whose workers were stopped, and names of files."""

import random
from datetime import timedelta

import pytest

from polyloss_lightning.search import run_queue, search
from polyloss_lightning.search.run_queue import this_process
from polyloss_lightning.search.storage import Location


class Objective:
    """True gain plus noise; stops at a call."""

    def __init__(self, stop_at=None):
        self.calls = 0
        self.stop_at = stop_at

    def __call__(self, gain, seed):
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        return gain + random.Random(f"{gain} {seed}").gauss(0, 0.1)


def run(folder, objective=None, **options):
    options = {"storage": f"journal:{folder}/log", "study": folder / "study", "explore_seeds": 2} | options
    settings = options.pop("settings", {"0": 0.0, "1": 1.0})
    write = options.pop("write", lambda line: None)
    return search(objective or Objective(), settings, baseline="0", confirm_seeds=3, write=write, **options)


@pytest.mark.parametrize("kind", ["not named", "number reused", "other machine"])
def test_a_run_whose_worker_was_stopped_early_or_before_a_restart_is_given_back(folder, kind, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(folder, Objective(stop_at=1))
    study = Location(folder / "study", f"journal:{folder}/log").open()
    trial = study.ask()  # as a worker does before a run
    if kind == "number reused":  # by this process, which started at another time than the worker
        trial.set_user_attr("worker", {**this_process(), "started": "1"})
    else:
        monkeypatch.setattr(run_queue, "_START", timedelta(0))
    if kind == "other machine":
        trial.set_user_attr("worker", {**this_process(), "host": "other"})
        result = run(folder, max_time=0.0)
        assert result.sentence == "Not finished: 1 of 4 runs of the explore phase are complete."
        assert study.get_trials()[trial.number].state.name == "RUNNING"
    else:
        result = run(folder)
        assert result.comparison.verdict == "better"


def test_a_long_name_of_any_letters_fits_into_the_name_of_a_file(folder):
    result = run(folder, settings={"0": 0.0, "𠀀" * 200: 1.0})
    assert not result.failures
