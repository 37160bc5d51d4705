"""Does SmallCNN learn at every image size? Three classes of digits, 120/40/10 training images, 20 epochs.

Prints the balanced accuracy on 40 other images of each class (chance is 0.333), for several sizes and seeds.
"""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from polyloss_lightning.models import SmallCNN

COUNTS = {1: 120, 2: 40, 0: 10}


def balanced_accuracy(size: int, seed: int, epochs: int = 20) -> float:
    """Train on digits of ``size`` times ``size`` pixels, and return the balanced accuracy on other digits."""
    torch.manual_seed(seed)
    digits = load_digits()
    images = F.interpolate(torch.tensor(digits.images).float()[:, None] / 16, size=(size, size), mode="bilinear")
    images = (images - 0.449) / 0.226
    train, test = [], []
    for digit, count in COUNTS.items():
        of_digit = torch.tensor(digits.target == digit).nonzero()[:, 0]
        of_digit = of_digit[torch.randperm(len(of_digit))]
        train.append(of_digit[:count])
        test.append(of_digit[count : count + 40])
    indices = torch.cat(train)
    target = torch.cat([torch.full((len(part),), k) for k, part in enumerate(train)])
    network = SmallCNN(num_classes=3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(indices)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(network(images[indices[batch]]), target[batch]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        recall = [(network(images[part]).argmax(1) == k).float().mean() for k, part in enumerate(test)]
    return float(torch.stack(recall).mean())


def main(seeds: int = 3) -> None:
    """Print one row per size."""
    torch.set_num_threads(1)
    print("| size | balanced accuracy, one per seed |\n|---|---|")
    for size in (8, 16, 32, 64):
        print(f"| {size} | {', '.join(f'{balanced_accuracy(size, seed):.3f}' for seed in range(seeds))} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
