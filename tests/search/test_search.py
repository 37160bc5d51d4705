"""A search with objectives that return at once."""

import random

import optuna
import pytest
import sqlalchemy

from polyloss_lightning.search import Setting, search
from polyloss_lightning.search.plan_store import load_plan
from polyloss_lightning.search.report.data import read_report
from polyloss_lightning.search.storage import Location
from polyloss_lightning.search.table import as_text

GAINS = {"0": 0.0, "1": 0.5, "2": 1.0}


class Objective:
    """True gain plus noise; records its calls, and fails or stops where a test needs it."""

    def __init__(self, broken=(), stop_at=None):
        self.calls = []
        self.broken = broken
        self.stop_at = stop_at

    def __call__(self, gain, seed):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append((gain, seed))
        if (gain, seed) in self.broken:
            raise RuntimeError("out of\nmemory")
        return gain + random.Random(f"{gain} {seed}").gauss(0, 0.1)


def run(folder, objective=None, **options):
    lines = []
    options = {
        "baseline": "0",
        "confirm_seeds": 4,
        "study": folder / "study",
        "storage": f"journal:{folder}/log",
        "write": lines.append,
    } | options
    result = search(objective or Objective(), options.pop("settings", GAINS), **options)
    return result, lines


def test_explores_all_settings_and_confirms_the_best_on_fresh_seeds(folder):
    objective = Objective()
    result, _ = run(folder, objective)
    explored = [(gain, seed) for seed in range(3) for gain in GAINS.values()]
    assert objective.calls[:9] == explored
    assert sorted(objective.calls[9:]) == sorted((gain, seed) for seed in range(3, 7) for gain in (0.0, 1.0))
    assert result.pick == "2"
    assert result.comparison.verdict == "better"
    assert result.comparison.differences[0].seeds == (3, 4, 5, 6)


def test_the_smallest_value_is_picked_if_small_is_good(folder):
    result, _ = run(folder, baseline="2", mode="min")
    assert (result.pick, result.comparison.verdict) == ("0", "better")


def test_the_table_has_a_row_for_each_setting_and_phase(folder):
    result, _ = run(folder)
    assert [(row.setting, row.phase, len(row.values)) for row in result.rows] == [
        ("0", "explore", 3),
        ("1", "explore", 3),
        ("2", "explore", 3),
        ("0", "confirm", 4),
        ("2", "confirm", 4),
    ]
    assert [row.difference is not None for row in result.rows] == [False, False, False, True, False]


def test_an_interrupted_search_continues_where_it_stopped(folder):
    first, second = Objective(stop_at=5), Objective()
    with pytest.raises(KeyboardInterrupt):
        run(folder, first)
    result, lines = run(folder, second)
    assert len(first.calls) == 5
    assert len(set(first.calls) | set(second.calls)) == len(first.calls) + len(second.calls) == 9 + 8
    assert "5 of 17 runs are done already" in lines
    assert result.comparison.verdict == "better"


def test_a_finished_search_runs_nothing_again(folder):
    first, _ = run(folder)
    objective = Objective()
    second, _ = run(folder, objective)
    assert objective.calls == []
    assert as_text(second) == as_text(first)


def test_a_failed_run_is_tried_again_once_and_reported_and_its_setting_is_not_picked(folder):
    objective = Objective(broken=[(1.0, 1)])
    result, lines = run(folder, objective)
    assert objective.calls.count((1.0, 1)) == 2
    assert result.pick == "1"
    assert list(result.failures.values()) == ["RuntimeError: out of memory"]
    assert any("2, seed 1: failed: RuntimeError: out of memory" in line for line in lines)
    assert any("cannot be picked: 2" in note for note in result.notes)


def test_a_run_that_succeeds_the_second_time_counts(folder):
    class Once(Objective):
        def __call__(self, gain, seed):
            value = super().__call__(gain, seed)
            if self.calls.count((1.0, 0)) == 1 and (gain, seed) == (1.0, 0):
                raise OSError("the disk was busy")
            return value

    result, _ = run(folder, Once())
    assert (result.pick, result.failures) == ("2", {})


def test_a_run_that_was_given_to_another_worker_in_the_meantime_is_repeated(folder):
    class Suspended(Objective):
        def __call__(self, gain, seed):
            value = super().__call__(gain, seed)
            if len(self.calls) == 2:
                study = Location(folder / "study", f"journal:{folder}/log").open()
                study.tell(1, state=optuna.trial.TrialState.FAIL)
            return value

    objective = Suspended()
    result, _ = run(folder, objective)
    assert objective.calls[1] == objective.calls[-9] == (0.5, 0)
    assert (len(objective.calls), result.failures) == (18, {})


def test_a_value_that_is_not_finite_is_a_failed_run(folder):
    result, _ = run(folder, lambda gain, seed: float("nan") if gain == 1.0 else gain)
    assert set(result.failures.values()) == {"ValueError: the value is nan"}
    assert result.pick == "1"


def test_a_pick_that_fails_on_a_fresh_seed_is_not_claimed_to_be_better(folder):
    result, _ = run(folder, Objective(broken=[(1.0, 5)]))
    assert result.comparison.verdict == "failed"
    assert "failed on seed 5 of the fresh seeds" in result.sentence


def test_a_baseline_that_fails_on_all_fresh_seeds_is_named_and_not_tried_again(folder):
    result, _ = run(folder, Objective(broken=[(0.0, seed) for seed in range(3, 7)]))
    assert result.comparison.verdict == "unfinished"
    assert result.sentence.endswith("is not confirmed: fewer than 2 fresh seeds are complete for both it and 0.")
    assert any("failed runs are not tried again in this study" in note for note in result.notes)


def test_names_are_strings(folder):
    with pytest.raises(TypeError, match=r"the names of the settings must be strings, got 0\.0"):
        run(folder, settings={0.0: 0.0, 1.0: 1.0}, baseline=0.0)


def test_a_study_with_other_settings_is_refused_and_the_difference_shown(folder):
    run(folder)
    with pytest.raises(ValueError, match=r"made with other settings") as error:
        run(folder, settings=GAINS | {"1": 0.7})
    assert "-0.5" in str(error.value)
    assert "+0.7" in str(error.value)


def test_more_confirm_seeds_are_a_second_look_at_half_the_level(folder):
    first, _ = run(folder)
    objective = Objective()
    second, _ = run(folder, objective, confirm_seeds=6)
    assert sorted(objective.calls) == sorted((gain, seed) for seed in (7, 8) for gain in (0.0, 1.0))
    assert (first.comparison.level, second.comparison.level) == (0.05, 0.025)
    assert any("this is look 2" in note for note in second.notes)
    assert "97.5 % interval" in second.sentence


def test_controls_are_explored_and_the_best_of_each_group_is_confirmed(folder):
    settings = GAINS | {"x2": 0.4, "x3": -0.4, "longer": 0.1}
    objective = Objective()
    result, _ = run(folder, objective, settings=settings, controls=[["x2", "x3"], ["longer"]])
    assert {gain for gain, _ in objective.calls[18:]} == {1.0, 0.0, 0.4, 0.1}
    assert [d.against for d in result.comparison.differences] == ["0", "x2", "longer"]


def test_a_control_that_is_better_than_the_pick_is_mentioned(folder):
    settings = [Setting("0", 0.0), Setting("1", 0.5), Setting("x2", 3.0, "the base loss at twice the learning rate")]
    result, _ = run(folder, settings=settings, controls=[["x2"]])
    (note,) = [note for note in result.notes if "helps more" in note]
    _, difference = result.comparison.differences
    assert f"the base loss at twice the learning rate is better than 1 by {-difference.mean:.3g}" in note
    assert f"({-difference.high:.3g} to {-difference.low:.3g})" in note


def test_a_limit_of_time_stops_with_what_is_complete(folder):
    result, _ = run(folder, max_time=0)
    assert result.sentence == "Not finished: 0 of 9 runs of the explore phase are complete."
    assert run(folder)[0].comparison.verdict == "better"


def test_progress_has_one_line_per_run_and_an_estimate_after_the_first(folder):
    _, lines = run(folder)
    assert sum(line.startswith("[") for line in lines) == 17
    assert sum("for all 17 runs, 1 at a time" in line for line in lines) == 1
    assert lines[-1].startswith("[17/17] ")


def test_output_of_each_run_is_in_a_file_of_its_own(folder, capfd):
    def objective(gain, seed):
        print(f"training with {gain} and {seed}")
        return gain

    run(folder, objective)
    assert capfd.readouterr().out == ""
    logs = list((folder / "study" / "runs").glob("*.log"))
    assert len(logs) == 17
    assert "training with 0.5 and 2" in next(log for log in logs if "1 seed 2" in log.name).read_text()


def test_objectives_may_return_several_metrics(folder):
    def objective(gain, seed):
        return {"val_acc": 0.5 + gain / 10, "val_loss": 1 - gain, "test_acc": 0.5 + gain / 20}

    result, _ = run(folder, objective, monitor="val_acc")
    assert result.rows[0].mean == pytest.approx(0.5)  # explore: validation
    assert result.rows[-1].mean == pytest.approx(0.55)  # confirm: test
    assert result.unit.percent


def test_a_report_on_an_unfinished_search_is_no_look(folder):
    with pytest.raises(KeyboardInterrupt):
        run(folder, Objective(stop_at=12))
    location = Location(folder / "study", f"journal:{folder}/log")
    answer = read_report(location.open()).answer
    assert answer.sentence == "Not finished: 2 is picked; 3 of 8 runs on fresh seeds are complete."
    assert answer.comparison is None
    result, _ = run(folder)
    assert result.comparison.look == 1
    assert read_report(location.open()).answer.sentence == result.sentence


def test_without_a_test_metric_the_answer_has_a_note(folder):
    result, _ = run(folder, lambda gain, seed: {"val_acc": 0.5 + gain / 10}, monitor="val_acc")
    assert any("which also selected the checkpoint and the setting" in note for note in result.notes)


def test_a_pick_at_the_edge_of_the_grid_is_mentioned(folder):
    settings = [Setting(f"epsilon {gain:g}", gain, "", "epsilon", gain) for gain in GAINS.values()]
    result, _ = run(folder, settings=settings, baseline="epsilon 0")
    assert any("is the largest epsilon that was tried; a larger one may do better" in note for note in result.notes)


def test_an_epsilon_below_minus_one_is_not_suggested(folder):
    settings = [Setting(f"epsilon {epsilon:g}", epsilon, "", "epsilon", epsilon) for epsilon in (0.0, -0.5, -1.0)]
    result, _ = run(folder, settings=settings, baseline="epsilon 0", mode="min")
    assert "epsilon -1 is the smallest epsilon that was tried; below -1 the gradient" in " ".join(result.notes)


def test_the_plan_can_be_read_from_the_study(folder):
    run(folder, controls=[["1"]])
    plan, confirm_seeds = load_plan(Location(folder / "study", f"journal:{folder}/log").open())
    assert [setting.name for setting in plan.settings] == ["0", "1", "2"]
    assert (plan.baseline, plan.controls, plan.explore_seeds, confirm_seeds) == ("0", (("1",),), 3, 4)


def test_a_study_in_another_format_is_refused(folder):
    run(folder)
    study = Location(folder / "study", f"journal:{folder}/log").open()
    study.set_user_attr("plan", 0)
    with pytest.raises(ValueError, match="cannot read the study 'study': it has plan format 0, this version reads for"):
        load_plan(study)


@pytest.mark.parametrize("name", ["a %20#:@ü{b}+", "a?b"])
def test_the_folder_may_have_any_name(folder, name):
    if "?" in name and sqlalchemy.__version__ < "2.1":
        with pytest.raises(ValueError, match=r"without '\?' in its path"):
            run(folder, study=folder / name, storage=None)
        return
    run(folder, study=folder / name, storage=None)
    assert (folder / name / "study.db").is_file()
    assert [path.name for path in folder.iterdir()] == [name]
    assert read_report(Location(folder / name).open()).answer.pick == "2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "`workers` must be at least 1, got 0"),
        ({"confirm_seeds": 1}, "`confirm_seeds` must be at least 2, got 1"),
        ({"explore_seeds": 0}, "`explore_seeds` must be at least 1, got 0"),
        ({"mode": "best"}, "`mode` must be 'max' or 'min', got 'best'"),
        ({"baseline": "zero"}, "must be among the settings .* got 'zero'"),
        ({"settings": {"0": 0.0}}, "at least one setting other than the baseline"),
        ({"monitor": "speed"}, "`mode` must be given as 'max' or 'min': the name 'speed' does not show"),
        ({"monitor": "val_loss", "mode": "min"}, "`monitor` must not move with epsilon, got 'val_loss'"),
        ({"monitor": "val_loss"}, "`monitor` must not move with epsilon, got 'val_loss'"),
        ({"settings": [Setting("0", 0), Setting("0", 1), Setting("1", 1)]}, r"its own name, got \['0'\]"),
    ],
)
def test_bad_arguments(change, message, folder):
    with pytest.raises(ValueError, match=message):
        run(folder, **change)
    assert not (folder / "study").exists()
