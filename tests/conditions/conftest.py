import importlib.util
import sys
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest

from polyloss_lightning.callbacks import PolynomialTermMonitor

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Monitors draw no figures, because that takes longer than most runs."""
    monkeypatch.setitem(PolynomialTermMonitor.__init__.__kwdefaults__, "figures", False)


def load(name):
    """Import a file of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run():
    """The module ``all_parts.py``."""
    return load("all_parts")


@pytest.fixture
def trainer(tmp_path):
    """Builds a silent Trainer of two epochs; options override its own, ``kind`` is the class."""

    def build(kind=pl.Trainer, **options):
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 2}
        quiet |= {"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, "enable_model_summary": False}
        return kind(**{**quiet, **options})

    return build


@pytest.fixture
def fit(run, trainer, tmp_path):
    """Trains a module with every part, and checks each of them; returns module and Trainer."""

    def fit(module, callbacks=(), *, total=None, rel=1e-5, train=None, weights_only=True, **options):
        fitted = trainer(callbacks=[*run.parts(), *callbacks], **options)
        fitted.fit(module) if train is None else partial(train, fitted)(module)
        calls = [call for call in module.calls if call.stage == "train"]
        last = [call for call in calls if call.epoch == calls[-1].epoch]
        run.check_calls(module.calls, total or fitted.global_step, rel)
        if not options.get("barebones"):
            run.check_sums(last, fitted.callback_metrics, rel=rel)
            fitted.save_checkpoint(tmp_path / "end.ckpt")
            loaded = run.Everything.load_from_checkpoint(tmp_path / "end.ckpt", weights_only=weights_only)
            assert loaded.loss_fn.epsilon == module.loss_fn.epsilon == 2.0
        return module, fitted

    return fit
