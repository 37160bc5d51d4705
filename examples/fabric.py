"""Lightning Fabric: a training loop of your own, with a Poly-1 loss whose epsilon moves and whose terms are measured.

python examples/fabric.py
"""

import argparse

import torch
from lightning.fabric import Fabric
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning import Poly1CrossEntropyLoss, PolynomialTerms
from polyloss_lightning.models import SmallCNN
from polyloss_lightning.schedules import CosineSchedule


def main(fast_dev_run: bool = False) -> None:
    """Train on digits, and print the terms of the loss after each epoch."""
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.seed_everything(0)
    images, target = (torch.tensor(values) for values in load_digits(return_X_y=True))
    dataset = TensorDataset(images.float().view(-1, 1, 8, 8) / 16, target)
    loader = fabric.setup_dataloaders(DataLoader(dataset, batch_size=64, shuffle=True))

    network = SmallCNN(num_classes=10)
    network, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters(), lr=3e-3))
    loss_fn = Poly1CrossEntropyLoss()
    terms = PolynomialTerms().to(fabric.device)
    loss_fn.register_observer(terms.update)

    epochs = 1 if fast_dev_run else 5
    steps, schedule = epochs * len(loader), CosineSchedule(init_value=-1.0, end_value=2.0)
    for epoch in range(epochs):
        for index, (batch, classes) in enumerate(loader):
            loss_fn.epsilon = schedule((epoch * len(loader) + index) / (steps - 1))
            loss = loss_fn(network(batch), classes)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            if fast_dev_run:
                break
        values = {name: f"{value:.3f}" for name, value in terms.compute().items() if value.dim() == 0}
        fabric.print(f"epoch {epoch}, epsilon {loss_fn.epsilon:.2f}: {values}")
        terms.reset()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch, to test the script")
    main(parser.parse_args().fast_dev_run)
