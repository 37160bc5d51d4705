"""How many runs fit on this machine at the same time, and which device each worker uses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def default_workers(num_threads: int | None) -> tuple[int, str]:
    """Return the number of runs at the same time, and the reason.

    Args:
        num_threads: number of CPU threads of a run; None if it uses all.

    Example:
        >>> default_workers(num_threads=None)[0] >= 1
        True
    """
    devices = torch.cuda.device_count()
    if devices:
        return devices, f"one per CUDA device ({devices})"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_threads is None:
        return 1, "a run uses all cores; set num_threads for several at a time"
    return max(1, cores // num_threads), f"{cores} cores, num_threads {num_threads}"


@contextmanager
def environment_of_worker(number: int) -> Iterator[None]:
    """Let processes that start within this context use a CUDA device of their own, if there are several."""
    devices = torch.cuda.device_count()
    if devices < 2:
        yield
        return
    before = os.environ.get(_VISIBLE)
    visible = before.split(",") if before else [str(index) for index in range(devices)]
    os.environ[_VISIBLE] = visible[number % devices]
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before
