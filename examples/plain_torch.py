"""A plain torch loop: the losses are ordinary torch modules, and an observer sees Pt of every sample."""

import argparse

import torch

from polyloss_lightning import Poly1CrossEntropyLoss, PolynomialTerms
from polyloss_lightning.data import DigitsDataModule
from polyloss_lightning.models import SmallCNN


def main(fast_dev_run: bool = False) -> None:
    """Train on the digits, and print the terms of the loss after every epoch."""
    torch.manual_seed(0)
    digits = DigitsDataModule(imbalance=None)
    network, loss_fn, terms = SmallCNN(num_classes=10), Poly1CrossEntropyLoss(epsilon=2.0), PolynomialTerms()
    loss_fn.register_observer(terms.update)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for epoch in range(1 if fast_dev_run else 5):
        for images, target in digits.train_dataloader():
            optimizer.zero_grad()
            loss_fn(network(images), target).backward()
            optimizer.step()
            if fast_dev_run:
                break
        values = terms.compute()
        names = ("loss", "base_loss", "term_1", "first_term_share", "pt")
        print(f"epoch {epoch}:", ", ".join(f"{name} {float(values[name]):.3f}" for name in names))
        terms.reset()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch, to test the script")
    main(parser.parse_args().fast_dev_run)
