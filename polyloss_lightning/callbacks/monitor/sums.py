"""The sums of the current pass of each stage, which are saved in a checkpoint."""

from collections.abc import Iterable, Mapping

import lightning.pytorch as pl
import torch
from torch import Tensor

from polyloss_lightning.callbacks.monitor.observation_collector import Seen
from polyloss_lightning.metrics import term_sums, zero_sums


class PassSums:
    """A vector of :func:`~polyloss_lightning.metrics.term_sums` for each stage and loss."""

    def __init__(self, num_terms: int) -> None:
        self.num_terms = num_terms
        self.num_classes: int | None = None  # classes to sum separately
        self._passes: dict[str, dict[str, Tensor]] = {}

    def begin(self, stage: str, paths: Iterable[str], device: torch.device) -> None:
        """Begin a pass of ``stage`` with all sums at zero."""
        self._passes[stage] = dict.fromkeys(paths, zero_sums(self.num_terms, self.num_classes, device))

    def add(self, stage: str, seen: Seen) -> dict[str, Tensor]:
        """Add the observations of a step, and return the sums of the step for the losses that it called.

        A loss that was added to the module during the pass (and found by a validation) counts from the next pass on.
        """
        sums = self._passes[stage]
        step: dict[str, Tensor] = {}
        for path, observation in seen:
            if path in sums:
                one = term_sums(observation, self.num_terms, self.num_classes).to(sums[path].device)
                step[path] = step[path] + one if path in step else one
        # Not in place: a tensor created under inference_mode cannot be changed outside of it.
        sums |= {path: sums[path] + one for path, one in step.items()}
        return step

    def of_step(self, trainer: pl.Trainer, step: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the sums of a step over all processes, but not those per class. Every process must call this."""
        if trainer.world_size == 1:
            return step
        size = len(zero_sums(self.num_terms))
        zeros = {path: torch.zeros_like(sums) for path, sums in self._passes["train"].items()}
        return over_processes(trainer, {path: sums[:size] for path, sums in {**zeros, **step}.items()})

    def end(self, trainer: pl.Trainer, stage: str) -> dict[str, Tensor]:
        """Return the sums of the pass over all processes, on the CPU, and set them to zero."""
        total = over_processes(trainer, self._passes[stage])
        # A checkpoint must not contain a finished pass.
        self._passes[stage] = {path: torch.zeros_like(sums) for path, sums in total.items()}
        return {path: sums.cpu() for path, sums in total.items()}

    def state(self, trainer: pl.Trainer) -> dict[str, Tensor]:
        """Return the sums of the training pass over all processes; only those of this process after an exception."""
        sums = self._passes.get("train", {})
        # After an exception, other processes may never get here.
        total = sums if trainer.interrupted else over_processes(trainer, sums)
        return {path: one.cpu().clone() for path, one in total.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue the training pass that has begun with saved sums. Call this on a single process."""
        sums = self._passes.get("train", {})
        for path in sums.keys() & state.keys():
            if sums[path].shape == state[path].shape:
                sums[path] = state[path].to(sums[path])


def over_processes(trainer: pl.Trainer, sums: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the sums over all processes by a single reduction. Every process must call this, with the same paths."""
    if trainer.world_size == 1 or not sums:
        return sums
    total = torch.stack(list(sums.values()))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)  # without the barrier of `strategy.reduce`, which waits for the device
    else:
        total = trainer.strategy.reduce(total, reduce_op="sum")
    return dict(zip(sums, total, strict=True))
