"""Token-level losses: logits of shape [B, T, V], targets with -100, and the loss that Hugging Face's Trainer takes.

    python examples/token_level.py

With transformers, pass `poly1_loss` on: `transformers.Trainer(model, ..., compute_loss_func=poly1_loss)`.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning import poly1_cross_entropy

VOCABULARY, IGNORED = 30, -100


def poly1_loss(
    outputs: Mapping[str, Any], labels: Tensor, num_items_in_batch: Tensor | int | None = None, epsilon: float = 1.0
) -> Tensor:
    """Return the Poly-1 loss of the next token, averaged over the tokens that count.

    Args:
        outputs: the output of a causal language model; its ``logits`` have shape ``[B, T, V]``.
        labels: token indices ``[B, T]``, -100 for those that do not count.
        num_items_in_batch: number of tokens in all micro-batches of a step, which Hugging Face's Trainer passes.
        epsilon: perturbation of the first coefficient.
    """
    logits, target = outputs["logits"][:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    if num_items_in_batch is None:
        return poly1_cross_entropy(logits, target, epsilon, ignore_index=IGNORED)
    return poly1_cross_entropy(logits, target, epsilon, ignore_index=IGNORED, reduction="sum") / num_items_in_batch


class LanguageModel(LightningModule):
    """A GRU that predicts the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 32)
        self.recurrent = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, VOCABULARY)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of the next tokens."""
        tokens, labels = batch
        hidden, _ = self.recurrent(self.embedding(tokens))
        loss = poly1_loss({"logits": self.head(hidden)}, labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(fast_dev_run: bool = False) -> None:
    """Train on sequences that count upwards; the first half of each is a prompt, which has no loss."""
    seed_everything(0)
    tokens = (torch.randint(VOCABULARY, (512, 1)) + torch.arange(16)) % VOCABULARY
    labels = tokens.clone()
    labels[:, :8] = IGNORED
    loader = DataLoader(TensorDataset(tokens, labels), batch_size=32, shuffle=True)
    Trainer(max_epochs=5, fast_dev_run=fast_dev_run).fit(LanguageModel(), loader)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast_dev_run", action="store_true", help="run one batch, to test the script")
    main(parser.parse_args().fast_dev_run)
