import pytest

from polyloss_lightning.callbacks import PolynomialTermMonitor


@pytest.fixture
def fit(observed, make_trainer):
    """Fits a module for two epochs with a monitor that draws figures; returns Trainer and module."""

    def run(module=None, logger=None, data=None, **options):
        monitor = PolynomialTermMonitor(**{"figures": True, **options})
        trainer = make_trainer(callbacks=[monitor], max_epochs=2, logger=logger or False)
        module = module or observed()
        trainer.fit(module, datamodule=data)
        return trainer, module

    return run
