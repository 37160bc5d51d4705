"""Poly-1 cross-entropy beside another loss: a module whose loss is the sum of Poly-1 and Dice.

    python examples/beside_dice.py

Only the polynomial has terms and an epsilon: the monitor and the scheduler find it by its path in the module,
`losses.poly`, and leave the Dice loss alone.
"""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning import EpsilonScheduler, Poly1BCEWithLogitsLoss, PolynomialTermMonitor
from polyloss_lightning.schedules import LinearSchedule


class DiceLoss(nn.Module):
    """1 - 2 |A and B| / (|A| + |B|), with probabilities for A."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the batch."""
        p, dims = input.sigmoid(), tuple(range(1, input.dim()))
        return 1 - (2 * (p * target).sum(dims) / (p.sum(dims) + target.sum(dims)).clamp(min=1e-6)).mean()


class Denoiser(LightningModule):
    """Finds the pen strokes in noisy images of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1))
        self.losses = nn.ModuleDict({"poly": Poly1BCEWithLogitsLoss(epsilon=-1.0), "dice": DiceLoss()})

    def training_step(self, batch: tuple[Tensor], batch_idx: int) -> Tensor:
        """Return the sum of both losses, and log each."""
        (images,) = batch
        stroke = (images > 0.5).float()
        logits = self.network(images + 0.3 * torch.randn_like(images))
        parts = {name: loss(logits, stroke) for name, loss in self.losses.items()}
        self.log_dict({f"train/{name}": part for name, part in parts.items()}, prog_bar=True)
        return parts["poly"] + parts["dice"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(fast_dev_run: bool = False) -> None:
    """Train while epsilon moves from -1 to 1."""
    seed_everything(0)
    images = torch.tensor(load_digits().images).float()[:, None] / 16
    loader = DataLoader(TensorDataset(images), batch_size=64, shuffle=True)
    callbacks = [EpsilonScheduler(LinearSchedule(-1.0, 1.0), loss="losses.poly"), PolynomialTermMonitor()]
    Trainer(max_epochs=5, callbacks=callbacks, fast_dev_run=fast_dev_run).fit(Denoiser(), loader)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch, to test the script")
    main(parser.parse_args().fast_dev_run)
