"""How much memory of the machine a loss takes, including what the allocator of C keeps between blocks."""

import os
from pathlib import Path

import pytest
import torch

from polyloss_lightning import Poly1BCEWithLogitsLoss, Poly1CrossEntropyLoss, Poly1SigmoidFocalLoss

PROCESS = Path("/proc/self")
ROWS, CLASSES = 1024, 16_384  # 64 MiB


def resident(name):
    (line,) = [line for line in (PROCESS / "status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


@pytest.mark.closed_form
@pytest.mark.skipif(not os.access(PROCESS / "clear_refs", os.W_OK), reason="reads the peak from /proc")
@pytest.mark.parametrize("loss", [Poly1BCEWithLogitsLoss(), Poly1SigmoidFocalLoss(), Poly1CrossEntropyLoss()])
@pytest.mark.parametrize("gradients", [False, True])
def test_the_process_grows_by_a_part_of_the_logits_or_by_their_gradient(loss, gradients):
    logits = torch.randn(ROWS, CLASSES, requires_grad=gradients)
    per_sample = isinstance(loss, Poly1CrossEntropyLoss)
    target = torch.randint(CLASSES, (ROWS,)) if per_sample else torch.zeros(ROWS, CLASSES)
    loss(logits[:8].detach(), target[:8])  # loads what is loaded once
    (PROCESS / "clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    for _ in range(3):
        value = loss(logits, target)
        if gradients:
            value.backward()
            logits.grad = None
    assert resident("VmHWM") - before < (0.4 + 1.1 * gradients) * logits.nbytes
