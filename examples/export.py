"""Export a network with its loss: torch.export for the loss, ONNX for the network and its loss on labelled data.

python examples/export.py          # ONNX needs: pip install onnx onnxscript
"""

import argparse
import importlib.util
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from polyloss_lightning import Poly1CrossEntropyLoss
from polyloss_lightning.models import SmallCNN


class WithLoss(nn.Module):
    """A network that returns its logits and the loss of each sample."""

    def __init__(self, network: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and losses."""
        logits = self.network(images)
        return logits, self.loss(logits, target)


def main(fast_dev_run: bool = False) -> None:
    """Export, and compare what the exported program computes with the original."""
    torch.manual_seed(0)
    module = WithLoss(SmallCNN(num_classes=10), Poly1CrossEntropyLoss(epsilon=2.0, reduction="none")).eval()
    example = torch.randn(4, 1, 8, 8), torch.randint(10, (4,))
    batch = torch.export.Dim("batch", min=2, max=1024)
    program = torch.export.export(module, example, dynamic_shapes=({0: batch}, {0: batch}))

    images, target = torch.randn(7, 1, 8, 8), torch.randint(10, (7,))
    with torch.no_grad():
        expected, losses = module(images, target)[1], program.module()(images, target)[1]
    print(f"torch.export: largest difference of the losses {(losses - expected).abs().max():.1e}")

    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing or fast_dev_run:
        print(f"ONNX: not tried{', because ' + ' and '.join(missing) + ' is missing' if missing else ''}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        torch.onnx.export(program, f=str(path), external_data=False, verbose=False)
        evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator(str(path))
        inputs = dict(zip(evaluator.input_names, (images.numpy(), target.numpy()), strict=True))
        difference = torch.as_tensor(evaluator.run(None, inputs)[1]) - expected
        print(f"ONNX: largest difference of the losses {difference.abs().max():.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast_dev_run", action="store_true", help="only torch.export")
    main(parser.parse_args().fast_dev_run)
