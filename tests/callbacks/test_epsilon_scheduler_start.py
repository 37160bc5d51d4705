"""A loss that was built with another epsilon than the schedule begins with."""

import warnings

import pytest

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.schedules import ConstantSchedule, LinearSchedule


@pytest.fixture
def started(seen_epsilon, make_trainer, tmp_path):
    def run(epsilon, schedule, *, resume=False):
        module = seen_epsilon()
        module.loss_fn = Poly1CrossEntropyLoss(epsilon)
        options = {"max_epochs": 1}
        if resume:
            make_trainer(**options).fit(module)
            module.trainer.save_checkpoint(tmp_path / "end.ckpt")
            options = {"max_epochs": 2}
        trainer = make_trainer(callbacks=[EpsilonScheduler(schedule)], **options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(module, ckpt_path=tmp_path / "end.ckpt" if resume else None)
        return [str(warning.message) for warning in caught if "was built" in str(warning.message)]

    return run


def test_an_epsilon_that_has_no_effect_is_warned_of_once(started):
    expected = "loss_fn was built with epsilon 5.0, which has no effect: EpsilonScheduler begins at -1.0."
    assert started(5.0, LinearSchedule(-1.0, 2.0)) == [expected]
    assert len(started([1.0, 0.5], LinearSchedule(-1.0, 2.0))) == 1


@pytest.mark.parametrize(
    ("epsilon", "schedule"),
    [(1.0, LinearSchedule(-1.0, 2.0)), (-1, LinearSchedule(-1.0, 2.0)), ([0.5, 0.5], ConstantSchedule([0.5, 0.5]))],
)
def test_the_default_and_the_first_value_of_the_schedule_are_right(started, epsilon, schedule):
    assert started(epsilon, schedule) == []


def test_a_run_that_resumes_is_not_warned_of(started):
    assert started(5.0, LinearSchedule(-1.0, 2.0), resume=True) == []
