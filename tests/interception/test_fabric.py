"""A loop of Lightning Fabric."""

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from polyloss_lightning import Poly1CrossEntropyLoss
from polyloss_lightning.interception import override_losses


@pytest.mark.condition("PolyLossOverride", "Fabric")
def test_a_fabric_loop_with_a_scope(softmax_reference):
    model = nn.ModuleDict({"net": nn.Linear(4, 3), "criterion": nn.CrossEntropyLoss()})
    model.forward = lambda x, target: model["criterion"](model["net"](x), target)
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    x, target = torch.randn(8, 4), torch.randint(3, (8,))
    with override_losses(2.0, scope=["criterion"], module=model) as override:
        for _ in range(2):
            optimizer.zero_grad()
            loss = wrapped(x, target)
            fabric.backward(loss)
            actual = model["net"].weight.grad.clone()
    (site,) = override.call_sites
    assert site.calls == 2
    model["criterion"] = Poly1CrossEntropyLoss(2.0)
    optimizer.zero_grad()
    expected = wrapped(x, target)
    fabric.backward(expected)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(actual, model["net"].weight.grad)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model["net"](x)
    torch.testing.assert_close(loss.double(), softmax_reference(logits.float(), target, 2.0), rtol=1e-4, atol=0)
