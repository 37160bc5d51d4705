"""The metrics of a run, one for each stage and loss."""

from collections.abc import Iterable, Sequence
from copy import deepcopy

import torch
from torch import Tensor

from polyloss_lightning.core import Observation
from polyloss_lightning.metrics import PolynomialTerms

Seen = Sequence[tuple[str, Observation]]


class TermSums:
    """Sums over the current pass of each stage and loss, which can be saved in a checkpoint and restored.

    Args:
        num_terms: number of terms to sum separately.
    """

    def __init__(self, num_terms: int) -> None:
        self.num_terms = num_terms
        self._metrics: dict[tuple[str, str], PolynomialTerms] = {}
        self._step_metrics: dict[str, PolynomialTerms] = {}
        self._restored: dict[str, Tensor] = {}

    def begin(self, stage: str, paths: Iterable[str], num_classes: int | None, device: torch.device) -> None:
        """Begin a pass of ``stage`` with all sums at zero."""
        for path in paths:
            # New objects instead of reset(): a state created under inference_mode cannot be updated outside of it.
            self._metrics[stage, path] = PolynomialTerms(self.num_terms, num_classes).to(device)
            if stage == "train":
                self._step_metrics[path] = PolynomialTerms(self.num_terms).to(device)

    def update(self, stage: str, seen: Seen) -> None:
        """Add the observations of a step."""
        for path, observation in seen:
            self._metrics[stage, path].update(observation)

    def compute(self, stage: str, path: str) -> dict[str, Tensor]:
        """Return the values of the pass and reset the sums. This is a collective: every process must call it."""
        metric = self._metrics[stage, path]
        values = _compute(metric)
        metric.reset()  # a checkpoint saved from now on must not contain the finished pass
        return values

    def compute_step(self, path: str, seen: Seen) -> dict[str, Tensor]:
        """Return the step values over all processes.

        They are NaN if no target counted. The result is an empty dict if this is the only process and it called no
        loss. With several processes this is a collective: every process must call it.
        """
        metric = self._step_metrics[path]
        metric.reset()
        _update(metric, path, seen)
        if not metric.update_called and not metric.distributed_available_fn():
            return {}
        return _compute(metric)

    def state_dict(self, seen: Seen, *, sync: bool) -> dict[str, Tensor]:
        """Return the sums of the training pass, by path of the loss.

        Args:
            seen: observations of a step that has not been added yet; they are included.
            sync: return the sums over all processes, in which case every process must call this; otherwise return
                the sums of this process.
        """
        state = {}
        for (stage, path), metric in self._metrics.items():
            if stage == "train":
                total = deepcopy(metric)
                _update(total, path, seen)
                with total.sync_context(should_sync=sync):
                    state[path] = total.sums.cpu().clone()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Keep saved sums until :meth:`restore` is called."""
        self._restored = dict(state)

    def restore(self, here: bool) -> None:
        """Continue the training pass that has begun with the saved sums.

        Args:
            here: whether this process takes the sums; True on one process only, so that they are not counted twice.
        """
        for path, sums in self._restored.items():
            metric = self._metrics.get(("train", path))
            if here and metric is not None and metric.sums.shape == sums.shape:
                metric.sums = sums.to(metric.sums)
        self._restored = {}


def _update(metric: PolynomialTerms, path: str, seen: Seen) -> None:
    for name, observation in seen:
        if name == path:
            metric.update(observation)


def _compute(metric: PolynomialTerms) -> dict[str, Tensor]:
    # torchmetrics warns about compute() without update(), but here that is no mistake: sums may have been restored.
    if not metric.update_called:
        empty = torch.zeros(0)
        metric.update(Observation(empty, empty, empty.long(), torch.zeros(()), (0.0,), 0.0, None))
    values: dict[str, Tensor] = metric.compute()
    return values
