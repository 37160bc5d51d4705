"""Every part of the package in two processes, for every way in which a Trainer starts them. ``nox -s long``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

SCRIPT = str(Path(__file__).with_name("all_parts.py"))
PARTS = ("LossProvider", "PolynomialTermMonitor", "EpsilonScheduler", "PolyLossOverride")


def in_two_processes(folder, strategy, *launcher):
    """Run the script, and return what both processes saved, with the calls of each as such."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, *launcher, SCRIPT, str(folder), strategy]
    done = subprocess.run(command, env=environment, timeout=300, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def case(name, strategy, *launcher):
    return pytest.param(strategy, launcher, id=name, marks=pytest.mark.condition(PARTS, name))


@pytest.mark.parametrize(
    ("strategy", "launcher"),
    [
        case("DDP, two processes", "ddp", ()),
        case("DDP by spawn", "ddp_spawn", ()),
        case("DDP by fork", "ddp_fork", ()),
        case("DDP by torchrun", "ddp", ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")),
        case("FSDP2", "fsdp2", ()),
        case("tensor parallel", "tensor_parallel", ()),
    ],
)
def test_two_processes(run, tmp_path, strategy, launcher):
    ranks = in_two_processes(tmp_path, strategy, *launcher[0])
    calls = [[run.Call(*call) for call in saved[0]] for saved in ranks]
    for of_rank in calls:
        run.check_calls(of_rank, total=ranks[0][2])
    assert [call.step for call in calls[0]] == [call.step for call in calls[1]]
    assert ranks[0][1] == ranks[1][1]
    torch.testing.assert_close(ranks[0][3], ranks[1][3], rtol=0, atol=0)
    last = [call for of_rank in calls for call in of_rank if call.epoch == 1]
    run.check_sums(last, ranks[0][1])
    # One process on all of the data, with the mean of the losses of both.
    reference = run.Everything(batches=6)
    optimizer = torch.optim.SGD(reference.net.parameters(), lr=0.1, momentum=0.9)
    x, y = reference.data.tensors
    for step in range(ranks[0][2]):
        epsilon = -1 + 3 * step / (ranks[0][2] - 1)
        steps = ranks[0][2] // 2
        size = len(y) // steps
        rows = slice(step % steps * size, (step % steps + 1) * size)
        log_p = reference.net(x[rows]).log_softmax(1)[range(size), y[rows]]
        optimizer.zero_grad()
        (2 * (-log_p + epsilon * (1 - log_p.exp())).mean()).backward()
        optimizer.step()
    torch.testing.assert_close(ranks[0][3], reference.net.weight.detach())
