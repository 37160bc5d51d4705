"""The mixin that adds a loss to a LightningModule and saves it in checkpoints."""

from polyloss_lightning.provider.loss_provider import LossProvider
from polyloss_lightning.provider.saved_loss import CHECKPOINT_KEY

__all__ = ["CHECKPOINT_KEY", "LossProvider"]
