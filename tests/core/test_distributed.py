"""Logits that are distributed over processes (tensor parallel): two of them, with gloo."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import polyloss_lightning as poly

pytest.importorskip("torch.distributed.tensor")

INDEX = torch.tensor([0, 1, 2, 3, -100, 1])
LOSSES = {
    "cross_entropy": (poly.Poly1CrossEntropyLoss(2.0), "index"),
    "smoothed": (poly.Poly1CrossEntropyLoss(2.0, label_smoothing=0.1), "index"),
    "probabilities": (poly.Poly1CrossEntropyLoss([2.0, -0.5]), "soft"),
    "focal": (poly.Poly1FocalLoss(2.0), "index"),
    "binary": (poly.Poly1BCEWithLogitsLoss(2.0), "soft"),
    "sigmoid_focal": (poly.Poly1SigmoidFocalLoss(2.0), "soft"),
}


def compare(rank: int, port: int) -> None:
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(6, 4, generator=generator)
    soft = torch.randn(6, 4, generator=generator).softmax(1)
    for name, (loss, kind) in LOSSES.items():
        target = INDEX if kind == "index" else soft
        for placement in (Shard(1), Shard(0), Replicate()):
            logits = distribute_tensor(input, mesh, [placement]).requires_grad_()
            of_target = Replicate() if placement == Shard(1) and kind == "index" else placement
            value = loss(logits, distribute_tensor(target, mesh, [of_target]))
            value.backward()
            leaf = input.clone().requires_grad_()
            expected = loss(leaf, target)
            expected.backward()
            message = f"{name}, {placement}"
            torch.testing.assert_close(value.full_tensor(), expected, msg=lambda m, at=message: f"{at}: {m}")
            torch.testing.assert_close(logits.grad.full_tensor(), leaf.grad, msg=lambda m, at=message: f"{at}: {m}")
    dist.destroy_process_group()


@pytest.mark.skipif(torch.__version__ < "2.7", reason="DTensor of torch 2.6 has no gradient of gather")
def test_logits_sharded_by_class_or_by_sample_have_the_loss_of_the_whole():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(compare, args=(port,), nprocs=2)
