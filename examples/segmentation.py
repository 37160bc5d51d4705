"""Semantic segmentation with pixels that do not count, on a composite: real digits pasted onto photographs.

    python examples/segmentation.py

The classes are the ten digits and the background. As in many data sets, the pixels at the border of an object have the
label 255. `Poly1CrossEntropyLoss(ignore_index=255)` leaves them out of the loss, and so does the monitor of its terms.
"""

import argparse

import torch
import torchvision
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning import LossProvider, Poly1CrossEntropyLoss, PolynomialTermMonitor

SIZE, BACKGROUND, BORDER = 64, 10, 255


def scenes(count: int) -> TensorDataset:
    """Paste one digit onto each of ``count`` random crops of two photographs."""
    photographs = torch.stack([torch.tensor(image).movedim(-1, 0) for image in load_sample_images().images]) / 255
    data, classes = load_digits(return_X_y=True)
    digits = F.interpolate(torch.tensor(data).float().view(-1, 1, 8, 8) / 16, scale_factor=4.0, mode="bilinear")
    images, masks = [], []
    for _ in range(count):
        top, left = (int(torch.randint(limit - SIZE, ())) for limit in photographs.shape[-2:])
        image = photographs[int(torch.randint(2, ())), :, top : top + SIZE, left : left + SIZE].clone()
        mask = torch.full((SIZE, SIZE), BACKGROUND)
        number, y, x = (int(torch.randint(limit, ())) for limit in (len(digits), SIZE - 32, SIZE - 32))
        stroke = digits[number, 0]
        image[:, y : y + 32, x : x + 32] *= 1 - stroke
        label = torch.where(stroke > 0.6, int(classes[number]), BACKGROUND)
        mask[y : y + 32, x : x + 32] = label.masked_fill((stroke > 0.3) & (stroke <= 0.6), BORDER)
        images.append(image)
        masks.append(mask)
    return TensorDataset(torch.stack(images), torch.stack(masks))


class Segmenter(LossProvider, LightningModule):
    """torchvision's LRASPP without pretrained weights."""

    def __init__(self, loss_fn: torch.nn.Module | None = None) -> None:
        super().__init__(loss_fn=loss_fn)
        build = torchvision.models.segmentation.lraspp_mobilenet_v3_large
        self.network = build(weights=None, weights_backbone=None, num_classes=11)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss; the logits have shape (N, 11, H, W), the mask (N, H, W)."""
        images, mask = batch
        return self.compute_loss(self.network(images)["out"], mask)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(fast_dev_run: bool = False) -> None:
    """Train on composed scenes."""
    seed_everything(0)
    # -1 is the epsilon of the paper for segmentation.
    model = Segmenter(Poly1CrossEntropyLoss(epsilon=-1.0, ignore_index=BORDER))
    loader = DataLoader(scenes(16 if fast_dev_run else 256), batch_size=16, shuffle=True)
    Trainer(max_epochs=5, callbacks=[PolynomialTermMonitor()], fast_dev_run=fast_dev_run).fit(model, loader)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch, to test the script")
    main(parser.parse_args().fast_dev_run)
