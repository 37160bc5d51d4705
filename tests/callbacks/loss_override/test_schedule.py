"""Epsilon on a schedule, also in a run that goes on from another one."""

import pytest
import torch

from polyloss_lightning import PolyLossOverride
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


def test_epsilon_is_the_schedule_of_the_progress_of_the_run(seeing, trainer, data, by_hand):
    override = PolyLossOverride(LinearSchedule(-1.0, 2.0))
    assert override.epsilon == -1.0
    module, run = seeing(), trainer(callbacks=[override], log_every_n_steps=1)
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
        return trained(seeing(), callbacks=[PolyLossOverride(LinearSchedule(0.0, 1.0), **options)]).seen

    assert seen(interval="epoch") == [0.0] * 4 + [1.0] * 4
    assert seen(begin=0.5) == pytest.approx([0.0] * 4 + [step / 3 for step in range(4)])
    assert seen(begin=2, end=5) == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")  # in the middle of an epoch, on purpose
def test_a_run_that_goes_on_has_the_epsilons_of_an_uninterrupted_one(seeing, trainer, data, tmp_path):
    def override():
        return PolyLossOverride(LinearSchedule(-1.0, 2.0))

    class Stop(seeing):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.trainer.global_step == 6:
                self.trainer.save_checkpoint(tmp_path / "stop.ckpt")

    trainer(callbacks=[override()]).fit(Stop(), data)
    module = seeing()
    trainer(callbacks=[override()]).fit(module, data, ckpt_path=tmp_path / "stop.ckpt")
    assert module.seen == pytest.approx(LINE[6:])
    with pytest.warns(UserWarning, match=r"12 steps long.*PolyLossOverride\(total=8\) keeps the old pace"):
        trainer(callbacks=[override()], max_epochs=3).fit(seeing(), data, ckpt_path=tmp_path / "stop.ckpt")


def test_several_coefficients_and_overrides_are_logged_apart(foreign, trainer, data):
    overrides = [
        PolyLossOverride(LinearSchedule([0.0, 0.0], [1.0, -0.5]), name="all", on_nothing="warn"),
        PolyLossOverride(LinearSchedule(0.0, 3.0), losses=["nll_loss"], name="nll", on_nothing="warn"),
    ]
    run = trainer(callbacks=overrides, log_every_n_steps=1)
    with pytest.warns(UserWarning, match="No loss was replaced"):
        run.fit(foreign(), data)
    logged = {name: value.item() for name, value in run.callback_metrics.items() if name.startswith("poly/")}
    assert logged == {"poly/all/epsilon_1": 1.0, "poly/all/epsilon_2": -0.5, "poly/nll/epsilon": 3.0}
