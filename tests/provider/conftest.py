from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer


@pytest.fixture
def save(tmp_path):
    """Trains a module for one step; returns the path of its checkpoint."""

    def save(module: LightningModule) -> Path:
        data = torch.utils.data.TensorDataset(torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))
        loader = torch.utils.data.DataLoader(data, batch_size=4)
        trainer = Trainer(
            max_steps=1,
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, loader)
        path = tmp_path / "net.ckpt"
        trainer.save_checkpoint(path)
        return path

    return save
