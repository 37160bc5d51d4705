"""Training in two processes: torchrun --nproc_per_node 2 examples/ddp_torchrun.py. Logged terms are those of both."""

import argparse
import os

from lightning.pytorch import Trainer, seed_everything

from polyloss_lightning import Poly1CrossEntropyLoss, PolynomialTermMonitor
from polyloss_lightning.data import DigitsDataModule
from polyloss_lightning.models import ImageClassifier, SmallCNN


def main(fast_dev_run: bool = False) -> None:
    """Train on the digits; with torchrun each process gets a part of every epoch, and the terms are summed."""
    seed_everything(0)
    digits = DigitsDataModule(imbalance=10.0, batch_size=32)
    model = ImageClassifier(SmallCNN(num_classes=10), num_classes=10, loss_fn=Poly1CrossEntropyLoss(epsilon=2.0))
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=3,
        log_every_n_steps=5,
        fast_dev_run=fast_dev_run,
        callbacks=[PolynomialTermMonitor()],
    )
    trainer.fit(model, datamodule=digits)
    if trainer.is_global_zero:
        values = trainer.callback_metrics
        print(
            f"{processes} processes:",
            {name: round(float(values[name]), 4) for name in sorted(values) if "poly" in name},
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch, to test the script")
    main(parser.parse_args().fast_dev_run)
