"""Making the training part of any classification data set long-tailed; here for torchvision's random images."""

import argparse

from lightning.pytorch import Trainer, seed_everything
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor

from polyloss_lightning.data import LongTailDataModule
from polyloss_lightning.models import ImageClassifier, SmallCNN

NUM_CLASSES = 4


def images(size: int, seed: int) -> FakeData:
    """Return random images with random classes, which need no download. Use your own data set instead."""
    return FakeData(size, image_size=(3, 32, 32), num_classes=NUM_CLASSES, transform=ToTensor(), random_offset=seed)


def main(fast_dev_run: bool = False) -> None:
    """Print the number of training samples of each class, then train and test a model."""
    seed_everything(0)
    # FakeData has no attribute `targets`, so its samples are loaded one by one to find their classes.
    datamodule = LongTailDataModule(
        train=images(400, seed=0), val=images(100, seed=1), test=images(100, seed=2), imbalance=20.0, batch_size=32
    )
    print(f"training samples of each class: {datamodule.class_counts}")
    model = ImageClassifier(SmallCNN(NUM_CLASSES, in_channels=3), NUM_CLASSES)
    trainer = Trainer(max_epochs=2, log_every_n_steps=1, fast_dev_run=fast_dev_run)
    trainer.fit(model, datamodule=datamodule)
    trainer.test(model, datamodule=datamodule)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch of each part, to test the script")
    main(parser.parse_args().fast_dev_run)
