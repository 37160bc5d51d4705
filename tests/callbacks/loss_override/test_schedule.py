"""An EpsilonScheduler moves the epsilon of an override, also in a run that goes on from another one."""

import pytest
import torch

from polyloss_lightning import EpsilonScheduler, Poly1CrossEntropyLoss, PolyLossOverride
from polyloss_lightning.schedules import LinearSchedule


@pytest.fixture
def seeing(foreign):
    """A module that writes down epsilon in each step."""

    class Seeing(foreign):
        def __init__(self):
            super().__init__()
            self.seen = []

        def training_step(self, batch, batch_idx):
            (override,) = (one for one in self.trainer.callbacks if isinstance(one, PolyLossOverride))
            self.seen.append(override.epsilon)
            return super().training_step(batch, batch_idx)

    return Seeing


LINE = [-1 + 3 * step / 7 for step in range(8)]


@pytest.mark.parametrize("order", [1, -1])
def test_epsilon_is_the_schedule_of_the_progress_of_the_run(seeing, trainer, data, by_hand, order):
    override = PolyLossOverride()
    callbacks = [override, EpsilonScheduler(LinearSchedule(-1.0, 2.0))][::order]
    module, run = seeing(), trainer(callbacks=callbacks, log_every_n_steps=1)
    run.fit(module, data)
    assert module.seen == pytest.approx(LINE)
    assert run.callback_metrics["poly/epsilon"] == override.epsilon == 2.0
    # The losses are those of these epsilons: the module goes the way of one whose loss has them.
    reference = type(module).__mro__[1](lambda logits, target: by_hand(logits, target, next(epsilons)))
    epsilons = iter(LINE)
    trainer().fit(reference, data)
    torch.testing.assert_close(module.net.state_dict(), reference.net.state_dict())


def test_epochs_and_a_window_of_the_run(seeing, trained):
    def seen(**options):
        scheduler = EpsilonScheduler(LinearSchedule(0.0, 1.0), **options)
        return trained(seeing(), callbacks=[PolyLossOverride(), scheduler]).seen

    assert seen(interval="epoch") == [0.0] * 4 + [1.0] * 4
    assert seen(begin=0.5) == pytest.approx([0.0] * 4 + [step / 3 for step in range(4)])
    assert seen(begin=2, end=5) == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")  # in the middle of an epoch, on purpose
@pytest.mark.condition("PolyLossOverride", "resume in the middle of an epoch")
def test_a_run_that_goes_on_has_the_epsilons_of_an_uninterrupted_one(seeing, trainer, data, tmp_path):
    def callbacks():
        return [PolyLossOverride(), EpsilonScheduler(LinearSchedule(-1.0, 2.0))]

    class Stop(seeing):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.trainer.global_step == 6:
                self.trainer.save_checkpoint(tmp_path / "stop.ckpt")

    trainer(callbacks=callbacks()).fit(Stop(), data)
    module = seeing()
    trainer(callbacks=callbacks()).fit(module, data, ckpt_path=tmp_path / "stop.ckpt")
    assert module.seen == pytest.approx(LINE[6:])
    with pytest.warns(UserWarning, match=r"12 steps long.*EpsilonScheduler\(total=8\) keeps the old pace"):
        trainer(callbacks=callbacks(), max_epochs=3).fit(seeing(), data, ckpt_path=tmp_path / "stop.ckpt")


def test_several_coefficients_and_overrides_are_logged_apart(foreign, trainer, data):
    overrides = [
        PolyLossOverride(name="all", on_nothing="warn"),
        PolyLossOverride(losses=["nll_loss"], name="nll", on_nothing="warn"),
    ]
    schedulers = [
        EpsilonScheduler(LinearSchedule([0.0, 0.0], [1.0, -0.5]), loss="all"),
        EpsilonScheduler(LinearSchedule(0.0, 3.0), loss="nll"),
    ]
    run = trainer(callbacks=[*schedulers, *overrides], log_every_n_steps=1)
    with pytest.warns(UserWarning, match="No loss was replaced"):
        run.fit(foreign(), data)
    logged = {name: value.item() for name, value in run.callback_metrics.items() if name.startswith("poly/")}
    assert logged == {"poly/all/epsilon_1": 1.0, "poly/all/epsilon_2": -0.5, "poly/nll/epsilon": 3.0}
    assert [override.epsilon for override in overrides] == [(1.0, -0.5), 3.0]


@pytest.fixture
def both(foreign):
    """A module with a loss of this package and one of torch."""

    class Both(foreign):
        def __init__(self):
            super().__init__()
            self.loss_fn = Poly1CrossEntropyLoss()

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) + self.loss_fn(self.net(batch[0]), batch[1])

    return Both


def test_one_scheduler_moves_the_losses_of_the_module_and_of_the_override(both, trainer, data):
    module, override = both(), PolyLossOverride()
    run = trainer(callbacks=[EpsilonScheduler(LinearSchedule(-1.0, 2.0)), override], log_every_n_steps=1)
    run.fit(module, data)
    assert module.loss_fn.epsilon == override.epsilon == run.callback_metrics["poly/epsilon"] == 2.0


def test_a_scheduler_of_the_module_leaves_the_override_alone_and_the_names_differ(both, trainer, data):
    module, override = both(), PolyLossOverride(3.0, name="torch")
    one = EpsilonScheduler(LinearSchedule(-1.0, 2.0), loss="loss_fn")
    run = trainer(callbacks=[one, override], log_every_n_steps=1)
    run.fit(module, data)
    assert (module.loss_fn.epsilon, override.epsilon) == (2.0, 3.0)
    other = EpsilonScheduler(LinearSchedule(0.0, 1.0), loss="torch")
    run = trainer(callbacks=[one, other, PolyLossOverride(name="torch")], log_every_n_steps=1)
    run.fit(both(), data)
    logged = {name: value.item() for name, value in run.callback_metrics.items() if name.startswith("poly/")}
    assert logged == {"poly/loss_fn/epsilon": 2.0, "poly/torch/epsilon": 1.0}


@pytest.mark.parametrize(("losses", "name"), [(["cross_entropy"], "loss_fn"), (None, "loss_fn")])
def test_an_override_with_the_name_of_a_loss_is_an_error(both, trainer, data, losses, name):
    callbacks = [EpsilonScheduler(LinearSchedule(-1.0, 2.0)), PolyLossOverride(losses=losses, name=name)]
    with pytest.raises(ValueError, match=r"\['loss_fn'\] is the path of a loss in the module.*another `name`"):
        trainer(callbacks=callbacks).fit(both(), data)


def test_an_unnamed_override_cannot_be_chosen(both, trainer, data):
    callbacks = [EpsilonScheduler(LinearSchedule(-1.0, 2.0), loss="cross_entropy"), PolyLossOverride()]
    with pytest.raises(
        ValueError, match=r"`loss` must be among \['loss_fn'\].*named overrides, got \['cross_entropy'\]"
    ):
        trainer(callbacks=callbacks).fit(both(), data)


def test_a_schedule_as_epsilon_is_an_error_that_names_the_scheduler():
    with pytest.raises(TypeError, match=r"`epsilon` must be .*LinearSchedule.*EpsilonScheduler"):
        PolyLossOverride(LinearSchedule(-1.0, 2.0))


def test_an_epsilon_of_the_override_that_has_no_effect_is_warned_of(foreign, trained):
    scheduler = EpsilonScheduler(LinearSchedule(-1.0, 2.0))
    with pytest.warns(UserWarning, match=r"PolyLossOverride was built with epsilon 5\.0.*begins at -1\.0"):
        trained(foreign(), callbacks=[PolyLossOverride(5.0), scheduler])


def test_a_test_with_a_checkpoint_uses_its_epsilon(evaluated, trainer, data, by_hand, tmp_path):
    run = trainer(callbacks=[PolyLossOverride(name="a"), EpsilonScheduler(LinearSchedule(-1.0, 2.0))])
    module = evaluated()
    run.fit(module, data, data)
    run.save_checkpoint(tmp_path / "end.ckpt")
    for epsilon, expected in ((1.0, 2.0), (0.5, 0.5)):  # one that was given another epsilon keeps it
        override = PolyLossOverride(epsilon, stages=["test"], name="a")
        new = evaluated()
        trainer(callbacks=[override, EpsilonScheduler(LinearSchedule(-1.0, 2.0))]).test(
            new, data, ckpt_path=tmp_path / "end.ckpt", weights_only=True, verbose=False
        )
        assert override.epsilon == expected
        with torch.no_grad():
            losses = [float(by_hand(module.net(input), target, expected)) for input, target in data]
        assert new.losses["val"] == pytest.approx(losses)


def test_a_checkpoint_of_an_epsilon_that_never_moved_needs_no_override(foreign, trainer, data, tmp_path):
    run = trainer(callbacks=[PolyLossOverride()])
    run.fit(foreign(), data)
    run.save_checkpoint(tmp_path / "end.ckpt")
    assert not torch.load(tmp_path / "end.ckpt", weights_only=True)["callbacks"]
