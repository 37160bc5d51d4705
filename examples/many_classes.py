"""Train a classifier with 32,000 classes, with and without holding its logits, and print time and memory of a step.

python examples/many_classes.py
"""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning import LossProvider, Poly1CrossEntropyLoss, Poly1LinearCrossEntropyLoss

FEATURES, CLASSES, BATCH, STEPS = 64, 32_000, 512, 5


class Classifier(LossProvider, LightningModule):
    """A linear classifier. Its loss takes the logits, or the features and the weight of the last layer."""

    def __init__(self, loss_fn: nn.Module) -> None:
        super().__init__(loss_fn=loss_fn)
        self.head = nn.Linear(FEATURES, CLASSES)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        features, target = batch
        if isinstance(self.loss_fn, Poly1LinearCrossEntropyLoss):
            return self.compute_loss(features, self.head.weight, target, linear_bias=self.head.bias)
        return self.compute_loss(self.head(features), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=10.0)


def peak_mib(module: Classifier, batch: tuple[Tensor, Tensor]) -> float:
    """Return the most memory that forward and backward hold at once, in MiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        module.training_step(batch, 0).backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def main(fast_dev_run: bool = False) -> None:
    """Train with both losses."""
    torch.manual_seed(0)
    target = torch.randint(CLASSES, (BATCH * STEPS,))
    features = torch.nn.functional.normalize(torch.randn(BATCH * STEPS, FEATURES), dim=-1)
    loader = DataLoader(TensorDataset(features, target), batch_size=BATCH)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    for loss_fn in (Poly1CrossEntropyLoss(epsilon=2.0), Poly1LinearCrossEntropyLoss(epsilon=2.0)):
        torch.manual_seed(0)
        module, timer = Classifier(loss_fn), Timer()
        trainer = Trainer(max_epochs=1, accelerator="cpu", fast_dev_run=fast_dev_run, callbacks=timer, **quiet)
        trainer.fit(module, loader)
        ms = 1e3 * timer.time_elapsed("train") / trainer.global_step
        batch = features[:BATCH], target[:BATCH]
        with torch.no_grad():
            loss = module.training_step(batch, 0)
        peak = peak_mib(module, batch)
        print(f"{type(loss_fn).__name__}: loss {loss:.4f} after training, {ms:.0f} ms per step, peak {peak:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch, to test the script")
    main(parser.parse_args().fast_dev_run)
