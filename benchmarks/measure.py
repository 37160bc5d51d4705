"""How benchmarks/losses.py measures time and memory of forward and backward.

This module only defines it. Running it does nothing.
"""

import statistics
import time
import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Loss = Callable[[Tensor], Tensor]
FEWEST_ROUNDS, MOST_ROUNDS = 3, 25  # of a run
# Two threads on a busy machine can be 20 times slower: seconds after which a run ends with fewer rounds, and a sample
# of it with fewer calls.
LIMIT, SAMPLE_LIMIT = 2.0, 0.2


def forward_and_backward(loss: Loss, input: Tensor) -> None:
    """Compute the loss and the gradient of ``input``."""
    input.grad = None
    loss(input).backward()


def seconds(loss: Loss, input: Tensor) -> float:
    """Measure the seconds of one forward and backward, averaged over enough calls for the clock."""
    if input.is_cuda:
        calls = min(50, max(1, 50_000_000 // input.numel()))
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            forward_and_backward(loss, input)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / calls
    calls, took = 0, 0.0
    began = time.perf_counter()
    while calls == 0 or (calls < 400_000 // input.numel() and took < SAMPLE_LIMIT):
        forward_and_backward(loss, input)
        calls += 1
        took = time.perf_counter() - began
    return took / calls


def run(loss: Loss, reference: Loss, input: Tensor, budget: float) -> tuple[float, float]:
    """Time two losses in turns.

    Args:
        loss: what is measured.
        reference: what it is compared with.
        input: the logits.
        budget: seconds after which no further round starts if there were three.

    Returns:
        The median over the rounds of the ratio of their times, and the median seconds of the reference.
    """
    for each in (loss, reference):
        forward_and_backward(each, input)
    ratios: list[float] = []
    references: list[float] = []
    began = time.perf_counter()
    while len(ratios) < MOST_ROUNDS:
        references.append(seconds(reference, input))
        ratios.append(seconds(loss, input) / references[-1])
        if time.perf_counter() - began > (budget if len(ratios) >= FEWEST_ROUNDS else LIMIT):
            break
    return statistics.median(ratios), statistics.median(references)


def in_units_of(input: Tensor, size: float) -> float:
    """Convert bytes to multiples of the bytes of ``input``."""
    return size / (input.numel() * input.element_size())


def peak(loss: Loss, input: Tensor) -> float:
    """Measure the most memory that forward and backward hold at once, in units of the logits.

    It counts what they allocate, the gradient included, and temporaries within an operation too; so neither the logits
    nor the target.
    """
    forward_and_backward(loss, input)  # what is allocated once, such as workspaces, does not count
    input.grad = None
    if input.is_cuda:
        before = torch.cuda.memory_allocated(input.device)
        torch.cuda.reset_peak_memory_stats(input.device)
        loss(input).backward()
        return in_units_of(input, torch.cuda.max_memory_allocated(input.device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss(input).backward()
    # One event for each allocation (bytes above 0) and each release (below 0). Neither the public `key_averages` nor
    # `events` keeps their order.
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    if not events:
        raise RuntimeError("torch.profiler reported no allocation")
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return in_units_of(input, most)


class _Saved:
    """A tensor that autograd keeps for backward."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept(loss: Loss, input: Tensor, target: Tensor | None = None) -> float:
    """Measure what autograd keeps between forward and backward, in units of the logits.

    Each storage counts once, and those of ``input`` and ``target`` do not count.
    """
    saved: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        saved.add(packed := _Saved(tensor))
        return packed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed.tensor):
        value = loss(input)
    storages = [packed.tensor.untyped_storage() for packed in saved]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    for tensor in (input, target):
        if tensor is not None:
            sizes.pop(tensor.untyped_storage().data_ptr(), None)
    del value
    return in_units_of(input, sum(sizes.values()))
