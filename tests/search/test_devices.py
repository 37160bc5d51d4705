"""Workers and their devices, on a machine with a made-up number of CUDA devices."""

import os

import pytest
import torch

from polyloss_lightning.search.config import devices_per_run
from polyloss_lightning.search.devices import default_workers, environment_of_worker


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(devices, cores=8):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)

    return make


def visible(worker, per_run):
    with environment_of_worker(worker, per_run):
        return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("devices", "per_run", "num_threads", "workers"),
    [(4, 1, None, 4), (4, 2, None, 2), (2, 4, None, 1), (4, None, 1, 1), (0, 1, 2, 4), (0, 2, 1, 4), (0, 1, None, 1)],
)
def test_default_number_of_workers(machine, devices, per_run, num_threads, workers):
    machine(devices)
    assert default_workers(num_threads, per_run)[0] == workers


@pytest.mark.parametrize(
    ("per_run", "expected"),
    [(1, ["0", "1", "2", "3", "0"]), (2, ["0,1", "2,3", "0,1", "2,3", "0,1"]), (4, [None] * 5), (None, [None] * 5)],
)
def test_each_worker_has_devices_of_its_own(machine, per_run, expected):
    machine(4)
    assert [visible(worker, per_run) for worker in range(5)] == expected
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_workers_share_only_the_devices_that_this_process_sees(machine, monkeypatch):
    machine(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [visible(worker, 1) for worker in range(2)] == ["5", "7"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"


@pytest.mark.parametrize(
    ("trainer", "number"),
    [
        ({}, 1),
        ({"devices": "auto", "strategy": "auto"}, 1),
        ({"devices": 2}, 2),
        ({"devices": "4", "strategy": "fsdp"}, 4),
        ({"devices": "auto", "strategy": "ddp"}, None),
        ({"devices": [3]}, None),
    ],
)
def test_devices_per_run(trainer, number):
    assert devices_per_run({"trainer": trainer}) == number
