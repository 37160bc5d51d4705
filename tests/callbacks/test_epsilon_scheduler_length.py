"""A schedule reaches its end with the run, or a warning is issued."""

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, StochasticWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.schedules import LinearSchedule


def line(steps):
    return pytest.approx([-1 + 3 * step / (steps - 1) for step in range(steps)])


@pytest.fixture
def fit(make_trainer):
    def run(module, *callbacks, total=None, end=None, **options):
        scheduler = EpsilonScheduler(LinearSchedule(-1.0, 2.0), total=total, end=end)
        make_trainer(callbacks=[scheduler, *callbacks], **{"max_epochs": 2, **options}).fit(module)
        return module.seen

    return run


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.condition("EpsilonScheduler", "stochastic weight averaging")
def test_the_epoch_that_weight_averaging_adds_for_batch_norm_is_not_part_of_the_schedule(
    seen_epsilon, make_trainer, first
):
    module = seen_epsilon(4)
    module.net = nn.Sequential(nn.BatchNorm1d(4), module.net)
    averaging = StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1)
    scheduler = EpsilonScheduler(LinearSchedule(-1.0, 2.0))
    callbacks = [averaging, scheduler] if first else [scheduler, averaging]
    make_trainer(callbacks=callbacks, max_epochs=3).fit(module)
    assert len(module.seen) == 16  # the fourth epoch updates the statistics of batch normalization only
    assert module.seen[:12] == line(12)
    assert module.seen[12:] == [2.0] * 4


class Growing:
    """A module mixin whose loader has one more batch in each epoch."""

    def train_dataloader(self):
        size = 2 * (3 + self.trainer.current_epoch)
        return DataLoader(TensorDataset(torch.randn(size, 4), torch.arange(size) % 3), batch_size=2)


@pytest.mark.condition("EpsilonScheduler", "loaders that are loaded again")
def test_a_loader_that_is_loaded_again_with_another_length_is_followed(seen_epsilon, fit):
    module = type("Module", (Growing, seen_epsilon), {})()
    with (
        pytest.warns(UserWarning, match=r"run is 11 steps long, but was expected to be 9\..*continues at .* instead"),
        pytest.warns(UserWarning, match=r"run is 12 steps long, but was expected to be 11\."),
    ):
        seen = fit(module, max_epochs=3, reload_dataloaders_every_n_epochs=1)
    # 3 + 4 + 5 batches: 9 steps are expected at first, then 3 + 2 * 4, then all 12.
    length = [9] * 3 + [11] * 4 + [12] * 5
    assert seen == pytest.approx([-1 + 3 * step / (total - 1) for step, total in enumerate(length)])
    assert seen[-1] == 2.0


def test_total_keeps_its_length_whatever_the_loader_does(seen_epsilon, fit):
    seen = fit(
        type("Module", (Growing, seen_epsilon), {})(), total=12, max_epochs=3, reload_dataloaders_every_n_epochs=1
    )
    assert seen == line(12)


@pytest.mark.condition("EpsilonScheduler", "epoch that is cut short")
def test_an_epoch_that_is_cut_short_is_followed(seen_epsilon, fit):
    class Skips(seen_epsilon):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if self.current_epoch == 0 and batch_idx == 2 else None

    with pytest.warns(UserWarning, match=r"run is 6 steps long, but was expected to be 8\."):
        seen = fit(Skips(4))
    assert seen[-1] == 2.0


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.ones(2, 4), torch.tensor([0, 1]))] * 5)


@pytest.mark.filterwarnings("ignore:.*ombination of iterable")
def test_a_loader_without_a_length_is_warned_of_and_followed(seen_epsilon, fit):
    module = seen_epsilon(loader=DataLoader(Stream(), batch_size=None))
    with (
        pytest.warns(UserWarning, match="The loader has no length, so the run may end with max_epochs=3 before max_st"),
        pytest.warns(UserWarning, match=r"run is 15 steps long, but was expected to be 100\."),
    ):
        seen = fit(module, max_epochs=3, max_steps=100)
    assert seen == pytest.approx([-1 + 3 * step / (99 if step < 5 else 14) for step in range(15)])


@pytest.mark.filterwarnings("ignore:.*ombination of iterable")
def test_a_run_that_ends_before_its_schedule_is_warned_of(seen_epsilon, fit):
    def stream():
        return seen_epsilon(loader=DataLoader(Stream(), batch_size=None))

    end = r"ended before its schedule, .* in step {}: the last epsilon was {} instead of 2\.0"
    with pytest.warns(UserWarning, match="no length"), pytest.warns(UserWarning, match=end.format(8, 0.5)):
        fit(stream(), max_epochs=1, max_steps=9)
    with pytest.warns(UserWarning, match=end.format(9, r"0\.33\d*")):
        fit(stream(), total=10, max_epochs=1)
    with pytest.warns(UserWarning, match=end.format(9, r"0\.33\d*")):
        assert fit(stream(), end=10, max_epochs=1) == pytest.approx([-1 + step / 3 for step in range(5)])

    class Stops(seen_epsilon):
        def on_train_epoch_end(self):
            self.log("value", 1.0)

    with pytest.warns(UserWarning, match=end.format(15, r"0\.4\d*")):
        fit(Stops(4), EarlyStopping("value", patience=1), max_epochs=4)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_a_run_resumed_in_the_middle_keeps_the_length_that_was_followed(seen_epsilon, fit, make_trainer, tmp_path):
    class Module(Growing, seen_epsilon):
        def on_train_batch_end(self, *args):
            self.trainer.save_checkpoint(tmp_path / f"{self.global_step}.ckpt")

    options = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
    with pytest.warns(UserWarning, match="run is 11 steps"), pytest.warns(UserWarning, match="run is 12 steps"):
        whole = fit(Module(), **options)
    module = Module()
    trainer = make_trainer(callbacks=[EpsilonScheduler(LinearSchedule(-1.0, 2.0))], **options)
    with pytest.warns(UserWarning, match=r"12 steps long, but was expected to be 11\."):  # not that it has changed
        trainer.fit(module, ckpt_path=tmp_path / "5.ckpt")
    assert module.seen[:2] == pytest.approx(whole[5:7])
