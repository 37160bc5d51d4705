"""A run that diverges goes on, and its values say so."""

import math

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from polyloss_lightning.callbacks import PolynomialTermMonitor
from polyloss_lightning.record import read_record


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.condition("PolynomialTermMonitor", "NaN logits")
def test_a_run_with_logits_that_are_no_numbers_goes_on(observed, make_trainer, tmp_path, broken, per_class):
    class Diverges(observed):
        def step(self, batch, stage):
            if stage == "train" and len(self.calls[stage]) == 2:
                with torch.no_grad():
                    self.net.bias.fill_(broken)
            return super().step(batch, stage)

    module = Diverges()
    trainer = make_trainer(
        callbacks=[PolynomialTermMonitor(per_class=per_class, figures=True)],
        max_epochs=2,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
    )
    trainer.fit(module)
    assert len(module.calls["train"]) == 10
    for name in ("loss", "term_1", "pt", "loss_step"):
        assert math.isnan(trainer.callback_metrics[f"train/poly/{name}"])
    assert math.isnan(read_record(trainer.log_dir).select("train")[0].metrics["loss"])
    assert (tmp_path / "lightning_logs" / "version_0" / "figures" / "terms.png").exists()
