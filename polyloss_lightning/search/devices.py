"""How many runs fit on this machine at the same time, and which devices each worker uses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def default_workers(num_threads: int | None, devices_per_run: int | None = 1) -> tuple[int, str]:
    """Return the number of runs at the same time, and the reason.

    Args:
        num_threads: number of CPU threads of a run; None if it uses all.
        devices_per_run: number of CUDA devices of a run, if there are any; None if it chooses its own.

    Example:
        >>> default_workers(num_threads=None)[0] >= 1
        True
    """
    if devices_per_run is None:
        return 1, "a run chooses its own devices"
    devices = torch.cuda.device_count()
    if devices:
        return max(1, devices // devices_per_run), f"{devices} CUDA devices, {devices_per_run} per run"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_threads is None:
        return 1, "a run uses all cores; set num_threads for several at a time"
    # The processes of a Trainer with several have num_threads each.
    return max(1, cores // (num_threads * devices_per_run)), f"{cores} cores, num_threads {num_threads}"


@contextmanager
def environment_of_worker(number: int, devices_per_run: int | None = 1) -> Iterator[None]:
    """Let processes that start within this context see CUDA devices of their own, if there are enough.

    Args:
        number: number of the worker, from 0. If there are more workers than devices, they share them in turn.
        devices_per_run: number of devices of a worker; None lets it see all.
    """
    before = os.environ.get(_VISIBLE)
    visible = before.split(",") if before else [str(index) for index in range(torch.cuda.device_count())]
    if devices_per_run is None or len(visible) <= devices_per_run:
        yield
        return
    first = number % (len(visible) // devices_per_run) * devices_per_run
    os.environ[_VISIBLE] = ",".join(visible[first : first + devices_per_run])
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before
