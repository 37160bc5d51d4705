import csv

import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.schedules import LinearSchedule

UP = LinearSchedule(0.0, 1.0)


def rows(logger):
    with open(f"{logger.log_dir}/metrics.csv") as file:
        return [(int(row["step"]), float(row["poly/epsilon"])) for row in csv.DictReader(file)]


@pytest.mark.parametrize("every", [1, 3])
def test_epsilon_is_logged_beside_the_step_that_it_was_used_in(make_trainer, seen_epsilon, tmp_path, every):
    logger = CSVLogger(tmp_path)
    module = seen_epsilon(4)
    make_trainer(callbacks=[EpsilonScheduler(UP)], logger=logger, max_epochs=3, log_every_n_steps=every).fit(module)
    assert rows(logger) == [(step, pytest.approx(module.seen[step])) for step in range(every - 1, 12, every)]


def test_with_accumulation_it_is_logged_once_a_step(make_trainer, seen_epsilon, tmp_path):
    logger = CSVLogger(tmp_path)
    options = {"max_epochs": 2, "log_every_n_steps": 1, "accumulate_grad_batches": 2}
    make_trainer(callbacks=[EpsilonScheduler(UP)], logger=logger, **options).fit(seen_epsilon(4))
    assert rows(logger) == [(step, pytest.approx(step / 3)) for step in range(4)]


@pytest.mark.parametrize("where", ["training_step", "on_train_batch_start"])
def test_a_module_that_logs_epsilon_itself_is_no_conflict(make_trainer, seen_epsilon, tmp_path, where):
    class Logging(seen_epsilon):
        def training_step(self, batch, batch_idx):
            if where == "training_step":
                self.log("poly/epsilon", self.loss_fn.epsilon, prog_bar=True, batch_size=2)
            return super().training_step(batch, batch_idx)

        def on_train_batch_start(self, batch, batch_idx):
            if where == "on_train_batch_start":
                self.log("poly/epsilon", self.loss_fn.epsilon)

    logger = CSVLogger(tmp_path)
    options = {"max_epochs": 1, "log_every_n_steps": 1, "logger": logger}
    make_trainer(callbacks=[EpsilonScheduler(UP)], **options).fit(Logging(4))
    assert rows(logger) == [(step, pytest.approx(step / 3)) for step in range(4)]


@pytest.mark.parametrize("options", [{"log_every_n_steps": 1}, {"barebones": True}, {"fast_dev_run": True}], ids=str)
@pytest.mark.condition("EpsilonScheduler", "no logger")
def test_without_a_logger_nothing_fails(make_trainer, seen_epsilon, options):
    trainer = make_trainer(callbacks=[EpsilonScheduler(UP)], **{"max_epochs": 1, **options})
    trainer.fit(seen_epsilon(4))
    assert trainer.callback_metrics == ({} if "barebones" in options else {"poly/epsilon": 1.0})


@pytest.mark.parametrize("shown", [False, True])
def test_it_is_in_the_progress_bar_on_request(make_trainer, seen_epsilon, shown):
    bar = TQDMProgressBar()
    scheduler = EpsilonScheduler(UP, prog_bar=shown)
    trainer = make_trainer(callbacks=[scheduler, bar], max_epochs=1, enable_progress_bar=True)
    trainer.fit(seen_epsilon(4))
    assert ("poly/epsilon" in bar.get_metrics(trainer, trainer.lightning_module)) is shown


def test_it_is_not_logged_where_that_is_off(make_trainer, seen_epsilon):
    trainer = make_trainer(callbacks=[EpsilonScheduler(UP, log_epsilon=False)], max_epochs=1, log_every_n_steps=1)
    trainer.fit(seen_epsilon(4))
    assert trainer.callback_metrics == {}


@pytest.mark.parametrize("every", [1, 2, 5])
def test_it_is_logged_no_more_often_than_asked_and_copies_nothing_to_the_device(
    make_trainer, seen_epsilon, monkeypatch, every
):
    module = seen_epsilon(4)
    logged = []
    monkeypatch.setattr(module, "log", lambda name, value, *_, **__: logged.append(value))
    make_trainer(callbacks=[EpsilonScheduler(UP)], max_epochs=1, log_every_n_steps=every).fit(module)
    assert len(logged) == 4 // every
    assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in logged)
