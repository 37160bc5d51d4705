"""What the user is told."""

import logging
import re

import pytest
import torch.nn.functional as F

from polyloss_lightning import PolyLossOverride
from polyloss_lightning.interception import LossOverrideError


@pytest.fixture
def told(caplog):
    """The messages of the override in Lightning's log."""
    caplog.set_level(logging.INFO)
    return lambda: [record.message for record in caplog.records if "PolyLossOverride" in record.message]


def test_after_the_first_batch_a_table_says_what_was_replaced(foreign, trained, told):
    class Interrupted(foreign):
        def on_train_batch_end(self, *args):
            assert len(told()) == 1
            raise KeyError

    with pytest.raises(KeyError):
        trained(Interrupted(), callbacks=[PolyLossOverride(2.0)])
    lines = told()[0].splitlines()
    assert lines[0] == "PolyLossOverride, epsilon 2.0:"
    assert lines[1].split() == ["function", "reduction", "shape", "called", "from", "replaced"]
    row = r"cross_entropy +mean +\(2, 3\) +tests/callbacks/loss_override/conftest.py:\d+ +yes"
    assert re.fullmatch(row, lines[2])


def test_it_is_told_once_and_again_in_a_second_fit(foreign, trainer, data, told):
    run = trainer(callbacks=[PolyLossOverride(2.0)])
    run.fit(foreign(), data)
    assert len(told()) == 1
    run.fit_loop.max_epochs = 4
    run.fit(foreign(), data)
    assert len(told()) == 2


def test_places_that_are_found_later_are_told_at_the_end_of_the_epoch(foreign, trained, told):
    class Later(foreign):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss if self.current_epoch == 0 else loss + F.nll_loss(self.net(batch[0]).log_softmax(1), batch[1])

    trained(Later(), callbacks=[PolyLossOverride(2.0)], max_epochs=3)
    first, second = told()
    assert "nll_loss" not in first
    assert re.search(r"nll_loss .*no: not in losses", second)


def test_that_nothing_was_replaced_is_told_once(trained, foreign, by_hand, told):
    with pytest.warns(UserWarning, match="No loss was replaced") as caught:
        trained(foreign(by_hand), callbacks=[PolyLossOverride(on_nothing="warn")])
    assert len(told()) == sum("No loss" in str(warning.message) for warning in caught) == 1


def test_a_loss_of_the_sanity_check_does_not_hide_that_training_has_none(evaluated, trainer, data, by_hand):
    class Mixed(evaluated):
        def validation_step(self, batch, batch_idx):
            F.cross_entropy(self.net(batch[0]), batch[1])

    run = trainer(callbacks=[PolyLossOverride(stages=["train", "val"])], num_sanity_val_steps=1)
    with pytest.raises(LossOverrideError, match="No loss was replaced"):
        run.fit(Mixed(by_hand), data, data)
