import pytest
import torch
from torch import nn

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.schedules import ConstantSchedule, LinearSchedule

UP, DOWN = LinearSchedule(0.0, 1.0), LinearSchedule(1.0, 0.0)


@pytest.fixture
def two_losses(seen_epsilon):
    class Two(seen_epsilon):
        """Two losses, ``loss_fn`` and ``heads.aux``; the first is found at ``heads.same`` too."""

        def __init__(self, first=None, aux=None):
            super().__init__(4)
            self.loss_fn = first or self.loss_fn
            self.heads = nn.ModuleDict({"aux": aux or Poly1CrossEntropyLoss(), "same": self.loss_fn})
            self.pairs = []

        def training_step(self, batch, batch_idx):
            self.pairs.append((self.loss_fn.epsilon, self.heads["aux"].epsilon))
            return super().training_step(batch, batch_idx)

    return Two


def fit(make_trainer, module, *schedulers, **options):
    trainer = make_trainer(callbacks=list(schedulers), **{"max_epochs": 1, "log_every_n_steps": 1, **options})
    trainer.fit(module)
    return trainer


T = [0, 1 / 3, 2 / 3, 1]


def test_without_a_path_every_loss_moves(make_trainer, two_losses):
    module = two_losses()
    trainer = fit(make_trainer, module, EpsilonScheduler(UP))
    assert module.pairs == [(t, t) for t in T]
    assert {"poly/epsilon"} == set(trainer.callback_metrics)


@pytest.mark.parametrize("paths", ["heads.aux", ["heads.aux"], ["heads.same", "heads.aux", "loss_fn"]], ids=str)
def test_with_paths_only_those_losses_move(make_trainer, two_losses, paths):
    module = two_losses()
    fit(make_trainer, module, EpsilonScheduler(UP, loss=paths))
    assert module.pairs == [(t if len(paths) == 3 else 0.25, t) for t in T]


@pytest.mark.condition("EpsilonScheduler", "several of a kind")
def test_two_schedulers_move_two_losses_and_keep_two_states(make_trainer, two_losses, tmp_path):
    def schedulers(**options):
        return EpsilonScheduler(UP, loss="loss_fn"), EpsilonScheduler(DOWN, loss="heads.aux", **options)

    module = two_losses()
    trainer = fit(make_trainer, module, *schedulers(total=7), max_epochs=2)
    assert [first for first, _ in module.pairs] == [step / 7 for step in range(8)]
    assert [second for _, second in module.pairs] == [1 - min(step / 6, 1) for step in range(8)]
    assert {name: value.item() for name, value in trainer.callback_metrics.items()} == {
        "poly/loss_fn/epsilon": 1.0,
        "poly/heads.aux/epsilon": 0.0,
    }
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    states = torch.load(tmp_path / "two.ckpt", weights_only=True)["callbacks"]
    assert {key: state["length"] for key, state in states.items()} == {
        "EpsilonScheduler{'loss': ('loss_fn',)}": 8,
        "EpsilonScheduler{'loss': ('heads.aux',)}": 7,
    }


@pytest.mark.parametrize("paths", [("loss_fn", None), ("loss_fn", ["heads.aux", "heads.same"])], ids=str)
@pytest.mark.condition("EpsilonScheduler", "several of a kind for one loss", refused="each would overwrite the other")
def test_two_schedulers_of_one_loss_are_an_error(make_trainer, two_losses, paths):
    with pytest.raises(ValueError, match=r"two EpsilonSchedulers have the same losses.*loss_fn"):
        fit(make_trainer, two_losses(), *(EpsilonScheduler(UP, loss=loss) for loss in paths))


def test_a_scheduler_from_configure_callbacks_conflicts_too(make_trainer, two_losses):
    class Configured(two_losses):
        def configure_callbacks(self):
            return [EpsilonScheduler(UP, loss="heads.aux"), EpsilonScheduler(DOWN, loss="heads.aux")]

    with pytest.raises(ValueError, match="two EpsilonSchedulers"):
        fit(make_trainer, Configured())


def test_a_wrong_path_is_an_error_that_names_the_right_ones(make_trainer, two_losses):
    with pytest.raises(ValueError, match=r"`loss`.*\['heads.aux', 'heads.same', 'loss_fn'\].*got \['head'\]"):
        fit(make_trainer, two_losses(), EpsilonScheduler(UP, loss=["loss_fn", "head"]))


@pytest.mark.condition("EpsilonScheduler", "no loss call", refused="there is nothing to move")
def test_a_module_without_such_a_loss_is_an_error(make_trainer, seen_epsilon):
    module = seen_epsilon()
    module.loss_fn = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match="SeenEpsilon has no loss"):
        fit(make_trainer, module, EpsilonScheduler(UP))


def test_a_loss_made_in_configure_model_is_found(make_trainer, seen_epsilon):
    class Late(seen_epsilon):
        def configure_model(self):
            self.loss_fn = Poly1CrossEntropyLoss()

    module = Late()
    fit(make_trainer, module, EpsilonScheduler(UP))
    assert module.seen == T


def test_poly_n_moves_each_coefficient(make_trainer, seen_epsilon):
    module = seen_epsilon()
    trainer = fit(make_trainer, module, EpsilonScheduler(LinearSchedule([0.0, 1.0], [1.0, 0.0])))
    assert module.seen == [(t, 1 - t) for t in T]
    assert {name: value.item() for name, value in trainer.callback_metrics.items()} == {
        "poly/epsilon_1": 1.0,
        "poly/epsilon_2": 0.0,
    }


def test_more_epsilons_than_terms_are_an_error(make_trainer, two_losses):
    with pytest.raises(ValueError, match="`num_terms` must be at least the number of epsilons"):
        fit(
            make_trainer, two_losses(aux=Poly1CrossEntropyLoss(num_terms=1)), EpsilonScheduler(ConstantSchedule([1, 2]))
        )


def test_below_minus_1_the_loss_warns_when_the_schedule_gets_there(make_trainer, seen_epsilon):
    with pytest.warns(UserWarning, match=r"epsilon -2 is below -1") as caught:
        fit(make_trainer, seen_epsilon(8), EpsilonScheduler(LinearSchedule(0.0, -2.0), total=3))
    assert sum("epsilon" in str(warning.message) for warning in caught) == 1


@pytest.mark.parametrize("path", ["loss_fn", "heads.new"])
def test_a_loss_that_the_module_replaces_or_adds_at_the_start_of_an_epoch_moves_in_that_epoch(
    make_trainer, two_losses, path
):
    class Replacing(two_losses):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                self.set_submodule(path, Poly1CrossEntropyLoss())
                self.seen = []

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if self.current_epoch == 1:
                self.seen[-1] = self.get_submodule(path).epsilon
            return loss

    module = Replacing()
    fit(make_trainer, module, EpsilonScheduler(UP), max_epochs=2)
    assert module.seen == [step / 7 for step in range(4, 8)]
