"""Using PolyLoss in your own LightningModule: LossProvider adds `loss_fn` and `compute_loss`."""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything

from polyloss_lightning import LossProvider, Poly1CrossEntropyLoss
from polyloss_lightning.data import DigitsDataModule
from polyloss_lightning.models import SmallCNN


class Digits(LossProvider, LightningModule):
    """An ordinary LightningModule, except for the mixin and the call of `compute_loss`."""

    def __init__(self, loss_fn: torch.nn.Module | None = None) -> None:
        super().__init__(loss_fn=loss_fn)
        self.network = SmallCNN(num_classes=10)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        images, target = batch
        return self.compute_loss(self.network(images), target)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy; the validation part is balanced."""
        images, target = batch
        accuracy = (self.network(images).argmax(dim=1) == target).float().mean()
        self.log("val/accuracy", accuracy, prog_bar=True, batch_size=len(target))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(fast_dev_run: bool = False) -> None:
    """Train on long-tailed digits with Poly-1 cross-entropy."""
    seed_everything(0)
    model = Digits(Poly1CrossEntropyLoss(epsilon=2.0))
    trainer = Trainer(max_epochs=20, log_every_n_steps=5, fast_dev_run=fast_dev_run)
    trainer.fit(model, datamodule=DigitsDataModule(imbalance=10.0, batch_size=32))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch of each part, to test the script")
    main(parser.parse_args().fast_dev_run)
