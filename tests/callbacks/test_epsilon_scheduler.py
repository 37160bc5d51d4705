import copy
import pickle

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import IterableDataset

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.schedules import ConstantSchedule, LinearSchedule, Schedule

UP = LinearSchedule(0.0, 1.0)  # its value is t


class Stairs(Schedule):
    """Somebody's own schedule, which gives whole numbers."""

    def value_at(self, t):
        return int(3 * t)


class Stream(IterableDataset):
    """Ten batches, and nothing that says so."""

    def __iter__(self):
        return iter([(torch.ones(2, 4), torch.tensor([0, 1]))] * 10)


@pytest.fixture
def fit(seen_epsilon, make_trainer):
    def run(scheduler, batches=4, loader=None, module=None, callbacks=(), **options):
        module = module or seen_epsilon(batches, loader=loader)
        make_trainer(callbacks=[scheduler, *callbacks], **options).fit(module)
        return module

    return run


def stream():
    return torch.utils.data.DataLoader(Stream(), batch_size=None)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3}, 12),
        ({"max_steps": 5}, 5),
        ({"max_epochs": 2, "max_steps": 100}, 8),
        ({"max_epochs": 2, "max_steps": 6}, 6),
        ({"max_epochs": 2, "limit_train_batches": 3}, 6),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 4),
        ({"max_epochs": 2, "overfit_batches": 2}, 4),
        ({"max_epochs": 2, "max_time": "00:01:00:00"}, 8),
        ({"fast_dev_run": 3}, 3),
        ({"max_epochs": 2, "barebones": True}, 8),
        ({"max_epochs": 2, "check_val_every_n_epoch": None, "val_check_interval": 3}, 8),
    ],
    ids=str,
)
def test_t_is_0_in_the_first_and_exactly_1_in_the_last_step(fit, options, steps):
    seen = fit(EpsilonScheduler(UP), **options).seen
    assert seen == [step / (steps - 1) for step in range(steps)]


def test_a_run_of_one_step_ends_at_once(fit):
    assert fit(EpsilonScheduler(UP), fast_dev_run=True).seen == [1.0]


@pytest.mark.parametrize("batches", [4, 5])
@pytest.mark.condition("EpsilonScheduler", "gradient accumulation")
def test_epsilon_stands_still_within_an_accumulated_step(fit, batches):
    seen = fit(EpsilonScheduler(UP), batches=batches, max_epochs=2, accumulate_grad_batches=2).seen
    per_epoch = -(-batches // 2)  # Lightning steps on the last batch of an epoch
    steps = [epoch * per_epoch + batch // 2 for epoch in range(2) for batch in range(batches)]
    assert seen == [step / (2 * per_epoch - 1) for step in steps]


@pytest.mark.parametrize("options", [{"max_epochs": 3}, {"max_steps": 12}, {"max_epochs": 9, "max_steps": 11}], ids=str)
def test_by_epoch_epsilon_moves_between_epochs(fit, options):
    seen = fit(EpsilonScheduler(UP, interval="epoch"), **options).seen
    assert seen == [epoch / 2 for epoch in range(3) for _ in range(4)][: options.get("max_steps")]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"begin": 2}, [0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1]),
        ({"begin": 0.25, "end": 0.75}, [0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1]),
        ({"begin": 1, "end": 4}, [0, 0, 0.5, 1, 1, 1, 1, 1]),
        ({"total": 5}, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]),
    ],
    ids=str,
)
def test_before_the_window_t_is_0_and_after_it_1(fit, window, expected):
    assert fit(EpsilonScheduler(UP, **window), max_epochs=2).seen == expected


@pytest.mark.filterwarnings("ignore:.*ombination of iterable")
@pytest.mark.parametrize(
    ("options", "scheduler", "expected"),
    [
        ({"max_epochs": 1, "limit_train_batches": 5}, {}, [0, 0.25, 0.5, 0.75, 1]),
        ({"max_steps": 5}, {}, [0, 0.25, 0.5, 0.75, 1]),
        ({"max_epochs": 1}, {"total": 10}, [step / 9 for step in range(10)]),
        ({"max_epochs": 1}, {"begin": 1, "end": 4}, [0, 0, 0.5, 1, 1, 1, 1, 1, 1, 1]),
        ({"max_epochs": 2}, {"interval": "epoch"}, [0] * 10 + [1] * 10),
    ],
    ids=str,
)
@pytest.mark.condition("EpsilonScheduler", "iterable data set")
def test_an_iterable_dataset_works_wherever_the_length_can_be_known(fit, options, scheduler, expected):
    assert fit(EpsilonScheduler(UP, **scheduler), loader=stream(), **options).seen == expected


@pytest.mark.parametrize(
    ("options", "scheduler", "callbacks", "iterable"),
    [
        ({"max_epochs": 2}, {}, [], True),
        ({"max_epochs": -1, "max_time": "00:00:00:10"}, {}, [], False),
        ({"max_epochs": -1, "max_time": "00:00:00:10"}, {"interval": "epoch"}, [], False),
        ({"max_steps": 8}, {"interval": "epoch"}, [], True),
        ({"max_epochs": 2}, {}, [GradientAccumulationScheduler({1: 2})], False),
    ],
)
@pytest.mark.condition(
    "EpsilonScheduler", "run of unknown length", refused="give `total`, because a schedule needs the length of the run"
)
def test_a_length_that_nobody_knows_is_asked_for(fit, options, scheduler, callbacks, iterable):
    with pytest.raises(ValueError, match=r"cannot tell how many .* this run will have.*EpsilonScheduler\(total"):
        fit(EpsilonScheduler(UP, **scheduler), loader=stream() if iterable else None, callbacks=callbacks, **options)


@pytest.fixture
def two_optimizers(seen_epsilon):
    class Manual(seen_epsilon):
        def __init__(self):
            super().__init__(4)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(super().training_step(batch, batch_idx))
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD([parameter], lr=0.1) for parameter in self.net.parameters()]

    return Manual


@pytest.mark.condition("EpsilonScheduler", "manual optimization")
def test_in_manual_optimization_a_step_is_a_batch(fit, two_optimizers):
    module = fit(EpsilonScheduler(UP), module=two_optimizers(), max_epochs=2)
    assert module.trainer.global_step == 16
    assert module.seen == [step / 7 for step in range(8)]
    with pytest.raises(ValueError, match=r"max_steps=6.*automatic_optimization=False.*total"):
        fit(EpsilonScheduler(UP), module=two_optimizers(), max_steps=6)
    assert fit(EpsilonScheduler(UP, total=3), module=two_optimizers(), max_steps=6).seen == [0.0, 0.5, 1.0]
    assert len(fit(EpsilonScheduler(UP), module=two_optimizers(), fast_dev_run=2).seen) == 1


@pytest.mark.condition("EpsilonScheduler", "LBFGS")
def test_lbfgs_reruns_of_a_step_see_one_epsilon(fit, seen_epsilon):
    class Rerun(seen_epsilon):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), max_iter=3)

    module = fit(EpsilonScheduler(UP), module=Rerun(2), max_epochs=2)
    assert len(module.seen) > 4
    assert sorted(set(module.seen)) == [0, 1 / 3, 2 / 3, 1]
    assert module.seen == sorted(module.seen)


@pytest.mark.condition("EpsilonScheduler", "validation and test")
def test_validation_sees_the_epsilon_of_the_moment_and_the_last_one_stays(fit, seen_epsilon):
    class Validated(seen_epsilon):
        def validation_step(self, batch, batch_idx):
            if not self.trainer.sanity_checking:
                self.validated.append(self.loss_fn.epsilon)

        def val_dataloader(self):
            return self.loader

    module = Validated(4)
    module.validated = []
    fit(EpsilonScheduler(UP), module=module, max_epochs=2, limit_val_batches=1)
    assert module.validated == [3 / 7, 1.0]
    assert module.loss_fn.epsilon == 1.0


@pytest.mark.parametrize("window", [{"begin": 100}, {"begin": 0.1, "end": 0.12}, {"begin": 6, "end": 0.5}], ids=str)
@pytest.mark.condition("EpsilonScheduler", "fast_dev_run")
def test_a_window_that_does_not_meet_the_run_is_warned_of_except_in_a_fast_dev_run(fit, window):
    with pytest.warns(UserWarning, match="window of the schedule, steps .* empty or past the end of this run of 8"):
        fit(EpsilonScheduler(UP, **window), max_epochs=2)
    fit(EpsilonScheduler(UP, **window), fast_dev_run=2)


@pytest.mark.condition("EpsilonScheduler", "copy and pickle")
def test_it_is_pickled_and_copied_with_its_schedule(fit):
    scheduler = EpsilonScheduler(UP, end=0.5)
    fit(scheduler, max_epochs=1)
    for copied in (pickle.loads(pickle.dumps(scheduler)), copy.deepcopy(scheduler)):
        assert copied.schedule == UP
        assert fit(copied, max_epochs=2).seen == [0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1]


def test_its_state_is_of_primitives(fit):
    scheduler = EpsilonScheduler(UP)
    fit(scheduler, max_epochs=2)
    assert scheduler.state_dict() == {"version": 2, "interval": "step", "length": 8, "expected": 8}


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"schedule": 1.0}, TypeError, "`schedule` must be a Schedule, got 1.0"),
        ({"schedule": lambda t: t}, TypeError, "`schedule`"),
        ({"interval": "batch"}, ValueError, "`interval`.*'step', 'epoch'.*'batch'"),
        ({"total": 0}, ValueError, "`total`.*at least 1.*0"),
        ({"total": 2.5}, TypeError, "`total`.*2.5"),
        ({"end": 2.0}, ValueError, "`end`"),
        ({"loss": []}, ValueError, "`loss`.*at least one path"),
    ],
)
def test_bad_arguments_are_errors_at_construction(arguments, error, match):
    with pytest.raises(error, match=match):
        EpsilonScheduler(**{"schedule": ConstantSchedule(1.0), **arguments})


def test_a_schedule_of_ones_own_may_give_whole_numbers(fit):
    module = fit(EpsilonScheduler(Stairs()), max_epochs=1, log_every_n_steps=1)
    assert module.seen == [0.0, 1.0, 2.0, 3.0]
