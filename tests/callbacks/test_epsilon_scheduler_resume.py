import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.schedules import LinearSchedule

EPOCHS, BATCHES = 2, 4


class ResumableLoader:
    """Fixed batches; like torchdata's StatefulDataLoader it goes on where it was when the checkpoint was written."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.batches = [(torch.randn(2, 4, generator=generator), torch.tensor([i % 3, 0])) for i in range(BATCHES)]
        self.next = 0

    def __len__(self):
        return BATCHES

    def __iter__(self):
        for i in range(self.next, BATCHES):
            self.next = (i + 1) % BATCHES
            yield self.batches[i]

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


class SaveAt(Callback):
    """Saves a checkpoint whenever ``hook`` fires in training, named after the batches done by then."""

    def __init__(self, hook, folder):
        self.folder = folder
        setattr(self, hook, self.save)

    def save(self, trainer, pl_module, *_):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"{len(pl_module.seen)}.ckpt")


def fit(module, make_trainer, *callbacks, ckpt_path=None, schedule=None, interval="step", total=None, **options):
    scheduler = EpsilonScheduler(schedule or LinearSchedule(-1.0, 2.0), interval=interval, total=total)
    trainer = make_trainer(callbacks=[scheduler, *callbacks], **{"max_epochs": EPOCHS, **options})
    if ckpt_path:
        torch.load(ckpt_path, weights_only=True)  # no class of ours is in it
    trainer.fit(module, ckpt_path=ckpt_path)
    return module


@pytest.fixture
def build(seen_epsilon):
    return lambda: seen_epsilon(loader=ResumableLoader())


@pytest.mark.parametrize("limit", ["max_epochs", "max_steps"])
@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.condition("EpsilonScheduler", "resume in the middle of an epoch")
def test_resume_at_every_batch_goes_on_as_if_uninterrupted(build, make_trainer, tmp_path, accumulate, interval, limit):
    options = {"interval": interval, "accumulate_grad_batches": accumulate}
    if limit == "max_steps":
        options |= {"max_epochs": -1, "max_steps": EPOCHS * BATCHES // accumulate}
    whole = fit(build(), make_trainer, SaveAt("on_train_batch_end", tmp_path), **options)
    assert (whole.seen[0], whole.seen[-1], len(whole.seen)) == (-1.0, 2.0, EPOCHS * BATCHES)
    for batch in range(1, EPOCHS * BATCHES):
        resumed = fit(build(), make_trainer, ckpt_path=tmp_path / f"{batch}.ckpt", **options)
        assert resumed.seen == whole.seen[batch:]
        if batch % accumulate == 0:  # Lightning does not save gradients: half an accumulation is lost
            torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_end"])
@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.condition("EpsilonScheduler", "resume at the end of an epoch")
def test_resume_from_the_end_of_an_epoch_goes_on_as_if_uninterrupted(build, make_trainer, tmp_path, interval, hook):
    def validated():
        module = build()
        module.validation_step = lambda batch, batch_idx: None
        module.val_dataloader = lambda: DataLoader(torch.zeros(1))
        return module

    whole = fit(validated(), make_trainer, SaveAt(hook, tmp_path), interval=interval)
    resumed = fit(validated(), make_trainer, interval=interval, ckpt_path=tmp_path / f"{BATCHES}.ckpt")
    assert resumed.seen == whole.seen[BATCHES:]
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert fit(validated(), make_trainer, interval=interval, ckpt_path=tmp_path / f"{2 * BATCHES}.ckpt").seen == []


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_an_epoch_resumed_after_its_last_step_ends_with_the_epsilon_of_that_step(
    build, make_trainer, tmp_path, interval
):
    def validated():
        module = build()
        module.validation_step = lambda batch, batch_idx: None
        module.val_dataloader = lambda: DataLoader(torch.zeros(1))
        module.at_the_end = []
        module.on_train_epoch_end = lambda: module.at_the_end.append(module.loss_fn.epsilon)
        return module

    whole = fit(validated(), make_trainer, SaveAt("on_validation_end", tmp_path), interval=interval)
    resumed = fit(validated(), make_trainer, interval=interval, ckpt_path=tmp_path / f"{BATCHES}.ckpt")
    assert resumed.at_the_end == whole.at_the_end == [whole.seen[BATCHES - 1], 2.0]


@pytest.fixture
def build_manual(seen_epsilon):
    class Manual(seen_epsilon):
        """Two optimizers, the second of which steps on every other batch only."""

        def __init__(self, loader=None, batches=BATCHES):
            super().__init__(batches=batches, loader=loader)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss)
            for i, optimizer in enumerate(self.optimizers()):
                if batch_idx % (i + 1) == 0:
                    optimizer.step()
            for optimizer in self.optimizers():
                optimizer.zero_grad()

        def configure_optimizers(self):
            return [torch.optim.SGD([parameter], lr=0.5) for parameter in self.net.parameters()]

    return lambda: Manual(loader=ResumableLoader())


def test_resume_in_manual_optimization_goes_on_as_if_uninterrupted(build_manual, make_trainer, tmp_path):
    whole = fit(build_manual(), make_trainer, SaveAt("on_train_batch_end", tmp_path))
    assert (whole.seen[0], whole.seen[-1], len(whole.seen)) == (-1.0, 2.0, EPOCHS * BATCHES)
    assert len(set(whole.seen)) == EPOCHS * BATCHES
    for batch in range(1, EPOCHS * BATCHES):
        resumed = fit(build_manual(), make_trainer, ckpt_path=tmp_path / f"{batch}.ckpt")
        assert resumed.seen == whole.seen[batch:]
        torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("interval", "old", "new"), [("step", 8, 16), ("epoch", 2, 4)])
def test_a_changed_length_is_followed_and_a_warning_says_what_it_does(
    build, make_trainer, tmp_path, interval, old, new
):
    fit(build(), make_trainer, SaveAt("on_train_batch_end", tmp_path), interval=interval)
    with pytest.warns(UserWarning, match=rf"is {new} {interval}s long.*was {old}\..*total={old}\) keeps"):
        longer = fit(build(), make_trainer, interval=interval, max_epochs=4, ckpt_path=tmp_path / "6.ckpt")
    expected = fit(build(), make_trainer, interval=interval, max_epochs=4)
    assert longer.seen == expected.seen[6:]


def test_total_keeps_the_old_pace_in_a_longer_run(build, make_trainer, tmp_path):
    whole = fit(build(), make_trainer, SaveAt("on_train_batch_end", tmp_path))
    longer = fit(build(), make_trainer, max_epochs=3, total=8, ckpt_path=tmp_path / "6.ckpt")
    assert longer.seen == [*whole.seen[6:], *[2.0] * BATCHES]


@pytest.mark.condition("EpsilonScheduler", "callback used again")
def test_a_callback_used_again_in_a_new_run_starts_anew_in_silence(build, make_trainer):
    scheduler = EpsilonScheduler(LinearSchedule(-1.0, 2.0))
    for epochs in (1, 2):
        module = build()
        make_trainer(callbacks=[scheduler], max_epochs=epochs).fit(module)
        assert (module.seen[0], module.seen[-1]) == (-1.0, 2.0)


def test_a_run_resumed_with_another_schedule_takes_the_new_one(build, make_trainer, tmp_path):
    fit(build(), make_trainer, SaveAt("on_train_batch_end", tmp_path))
    resumed = fit(build(), make_trainer, schedule=LinearSchedule(0.0, 7.0), ckpt_path=tmp_path / "5.ckpt")
    assert resumed.seen == [5.0, 6.0, 7.0]
