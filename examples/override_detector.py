"""Training a detector of torchvision with Poly-1 losses, without changing its code: PolyLossOverride."""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from polyloss_lightning import PolyLossOverride


class Detector(LightningModule):
    """An ordinary LightningModule around a detector that computes its own losses."""

    def __init__(self) -> None:
        super().__init__()
        options = {"weights": None, "weights_backbone": None, "num_classes": 3, "min_size": 160, "max_size": 160}
        self.model = fasterrcnn_mobilenet_v3_large_320_fpn(**options)

    def training_step(self, batch: list[tuple[torch.Tensor, dict[str, torch.Tensor]]], batch_idx: int) -> torch.Tensor:
        """Return the sum of the detector's losses."""
        images, targets = zip(*batch, strict=True)
        losses = self.model(list(images), list(targets))
        self.log_dict({f"train/{name}": value for name, value in losses.items()}, batch_size=len(images))
        return torch.stack(list(losses.values())).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def random_images(number: int) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Return images with one box each. Use your own data set instead."""
    box = torch.tensor([[20.0, 20.0, 120.0, 120.0]])
    return [(torch.rand(3, 160, 160), {"boxes": box, "labels": torch.tensor([1 + i % 2])}) for i in range(number)]


def main(fast_dev_run: bool = False) -> None:
    """Train for some steps; the report after the first batch lists every loss call and whether it is replaced."""
    seed_everything(0)
    # As in the paper, only the classification of the boxes: the scope leaves out the objectness of the proposals.
    override = PolyLossOverride(epsilon=-1.0, scope=["model.roi_heads"])
    loader = DataLoader(random_images(4), batch_size=2, collate_fn=list)
    trainer = Trainer(max_epochs=2, log_every_n_steps=1, fast_dev_run=fast_dev_run, callbacks=[override])
    trainer.fit(Detector(), loader)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch, to test the script")
    main(parser.parse_args().fast_dev_run)
