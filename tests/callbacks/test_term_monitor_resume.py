import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger

from polyloss_lightning.callbacks import PolynomialTermMonitor
from polyloss_lightning.record import read_record

pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


class SaveEveryBatch(pl.Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.fixture
def run(observed, make_trainer):
    def fit(callbacks=(), ckpt_path=None, **options):
        module = observed()
        options = {"max_epochs": 2, "limit_val_batches": 0, **options}
        checkpointing = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
        trainer = make_trainer(callbacks=callbacks, enable_checkpointing=checkpointing, **options)
        trainer.fit(module, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
        return module.calls["train"], float(trainer.callback_metrics["train/poly/loss"])

    return fit


@pytest.mark.parametrize("first", ["saver", "monitor"])
@pytest.mark.condition("PolynomialTermMonitor", "resume in the middle of an epoch")
def test_an_epoch_resumed_at_any_batch_is_whole(run, tmp_path, loss_of, first):
    saver, monitor = SaveEveryBatch(tmp_path), PolynomialTermMonitor()
    before, _ = run([saver, monitor] if first == "saver" else [monitor, saver])
    for step in range(1, 10):
        after, loss = run([PolynomialTermMonitor()], ckpt_path=tmp_path / f"{step}.ckpt")
        assert len(after) == 10 - step
        second_epoch = [*before[5:step], *after][-5:]
        assert loss == pytest.approx(loss_of(second_epoch), rel=1e-5), step


@pytest.mark.parametrize(("hook", "step"), [("on_train_batch_end", 4), ("on_train_epoch_start", 5)])
@pytest.mark.condition("PolynomialTermMonitor", "Trainer used again")
def test_an_interrupted_trainer_and_its_monitor_can_go_on(observed, make_trainer, tmp_path, loss_of, hook, step):
    """The monitor of the interrupted run has seen more than the checkpoint holds."""
    monitor, module, stop = PolynomialTermMonitor(), observed(), pl.Callback()

    def stop_there(trainer, *args):
        if trainer.global_step == step:
            raise RuntimeError("stop")

    setattr(stop, hook, stop_there)
    with pytest.raises(RuntimeError, match="stop"):
        make_trainer(callbacks=[SaveEveryBatch(tmp_path), monitor, stop], max_epochs=2).fit(module)
    trainer = make_trainer(callbacks=[monitor], max_epochs=1)
    trainer.fit(module, ckpt_path=tmp_path / "2.ckpt")
    calls = module.calls["train"]
    expected = loss_of([*calls[:2], *calls[step:]])
    assert len(calls) == step + 3
    assert float(trainer.callback_metrics["train/poly/loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("when", [{"every_n_epochs": 1}, {"save_on_train_epoch_end": True}, {"every_n_train_steps": 5}])
@pytest.mark.parametrize("validate", [0, 1.0])
@pytest.mark.condition("PolynomialTermMonitor", "resume at the end of an epoch")
def test_a_run_resumed_at_the_end_of_an_epoch_begins_the_next_one_anew(run, tmp_path, loss_of, when, validate):
    def saver():
        return ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **when)

    run([saver(), PolynomialTermMonitor()], limit_val_batches=validate, max_epochs=1)
    options = {"limit_val_batches": validate, "max_epochs": 3}
    after, loss = run([saver(), PolynomialTermMonitor()], tmp_path / "step=5.ckpt", **options)
    assert len(after) == 10
    assert loss == pytest.approx(loss_of(after[-5:]), rel=1e-5)


def test_a_checkpoint_of_a_finished_epoch_holds_no_sums(run, tmp_path):
    run([ModelCheckpoint(tmp_path, "end", save_on_train_epoch_end=True), PolynomialTermMonitor()])
    checkpoint = torch.load(tmp_path / "end.ckpt", weights_only=True)
    state = checkpoint["callbacks"]["PolynomialTermMonitor{'losses': None}"]
    assert state["version"] == 1
    assert not state["train_sums"]["loss_fn"].any()
    assert not any("poly" in key or "sums" in key for key in checkpoint["state_dict"])


def test_a_run_that_had_no_monitor_can_go_on_with_one(run, observed, make_trainer, tmp_path, loss_of):
    make_trainer(callbacks=[SaveEveryBatch(tmp_path)], max_epochs=1).fit(observed())
    after, loss = run([PolynomialTermMonitor()], tmp_path / "3.ckpt", max_epochs=1)
    assert loss == pytest.approx(loss_of(after), rel=1e-5)


def test_a_checkpoint_of_an_exception_holds_the_sums_up_to_it(run, observed, make_trainer, tmp_path, loss_of):
    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == 3:
                raise RuntimeError("stop")

        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    module = observed()
    with pytest.raises(RuntimeError, match="stop"):
        make_trainer(callbacks=[Stop(), PolynomialTermMonitor()], max_epochs=1).fit(module)
    after, loss = run([PolynomialTermMonitor()], tmp_path / "stopped.ckpt", max_epochs=1)
    assert loss == pytest.approx(loss_of([*module.calls["train"], *after]), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*ckpt_path=")  # Lightning looks for the checkpoint of an earlier exception
@pytest.mark.parametrize("where", ["on_train_batch_end", "training_step", "on_before_zero_grad"])
def test_an_exception_loses_no_step_that_was_trained_and_counts_none_that_was_not(
    run, observed, make_trainer, tmp_path, loss_of, where
):
    class Fails(observed):
        def fail(self):
            if self.global_step == 3:
                raise RuntimeError("stop")

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if where == "training_step":
                self.fail()
            return loss

        def on_before_zero_grad(self, optimizer):
            if where == "on_before_zero_grad":
                self.fail()

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if where == "on_train_batch_end":
                pl_module.fail()

    module = Fails()
    checkpoint = OnExceptionCheckpoint(tmp_path)
    trainer = make_trainer(
        callbacks=[Stop(), PolynomialTermMonitor(), checkpoint], max_epochs=1, enable_checkpointing=True
    )
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(module)
    states = torch.load(tmp_path / "on_exception.ckpt", weights_only=True)["callbacks"]
    sums = states["PolynomialTermMonitor{'losses': None}"]["train_sums"]["loss_fn"]
    trained = module.calls["train"][:3]
    weight = torch.tensor([0.2, 1.0, 4.0])
    assert float(sums[8]) == pytest.approx(float(sum(weight[y[y >= 0]].sum() for _, y in trained)))
    assert float(sums[4] / sums[8]) == pytest.approx(loss_of(trained, epsilon=0.0), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
@pytest.mark.condition("PolynomialTermMonitor", "stochastic weight averaging")
def test_the_epoch_that_weight_averaging_adds_is_not_recorded(observed, make_trainer, tmp_path):
    module = observed()
    module.net = torch.nn.Sequential(torch.nn.BatchNorm1d(4), module.net)
    averaging = StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1)
    monitor = PolynomialTermMonitor(figures=False)
    trainer = make_trainer(callbacks=[averaging, monitor], max_epochs=3, logger=CSVLogger(tmp_path))
    trainer.fit(module)
    assert len(module.calls["train"]) == 4 * 5
    assert [epoch.epoch for epoch in read_record(trainer.log_dir).select("train")] == [0, 1, 2]
