"""Several labels at once: which digits are on a card of two handwritten digits, with a Poly-1 sigmoid focal loss.

python examples/multi_label.py
"""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MultilabelAveragePrecision

from polyloss_lightning import LossProvider, Poly1SigmoidFocalLoss
from polyloss_lightning.models import SmallCNN


def cards(count: int) -> TensorDataset:
    """Put two random digits side by side. The target is 1 for the digits on the card and 0 for the others."""
    data, classes = (torch.tensor(values) for values in load_digits(return_X_y=True))
    images = data.float().view(-1, 1, 8, 8) / 16
    pairs = torch.randint(len(images), (count, 2))
    target = torch.zeros(count, 10).scatter_(1, classes[pairs], 1.0)
    return TensorDataset(torch.cat([images[pairs[:, 0]], images[pairs[:, 1]]], dim=-1), target)


class Cards(LossProvider, LightningModule):
    """One logit per label. The targets are floating-point numbers, so soft labels work as well."""

    def __init__(self, loss_fn: torch.nn.Module | None = None) -> None:
        super().__init__(loss_fn=loss_fn)
        self.network = SmallCNN(num_classes=10)
        self.precision = MultilabelAveragePrecision(num_labels=10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, target = batch
        return self.compute_loss(self.network(images), target)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the mean average precision over the labels."""
        images, target = batch
        self.precision.update(self.network(images).sigmoid(), target.long())
        self.log("val/average_precision", self.precision, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(fast_dev_run: bool = False) -> None:
    """Train with a Poly-1 sigmoid focal loss."""
    seed_everything(0)
    model = Cards(Poly1SigmoidFocalLoss(epsilon=1.0, reduction="mean"))
    training, validation = (DataLoader(cards(count), batch_size=64) for count in (2048, 512))
    Trainer(max_epochs=10, fast_dev_run=fast_dev_run).fit(model, training, validation)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch of each part, to test the script")
    main(parser.parse_args().fast_dev_run)
