"""The metrics of a run: one for each stage and loss."""

from collections.abc import Iterable, Sequence
from copy import deepcopy

import torch
from torch import Tensor

from polyloss_lightning.core import Observation
from polyloss_lightning.metrics import PolynomialTerms

Seen = Sequence[tuple[str, Observation]]


class TermSums:
    """Sums of the running pass of each stage and loss, and how they go into a checkpoint.

    Args:
        num_terms: number of terms to tell apart.
    """

    def __init__(self, num_terms: int) -> None:
        self.num_terms = num_terms
        self._metrics: dict[tuple[str, str], PolynomialTerms] = {}
        self._step_metrics: dict[str, PolynomialTerms] = {}
        self._restored: dict[str, Tensor] = {}

    def begin(self, stage: str, paths: Iterable[str], num_classes: int | None, device: torch.device) -> None:
        """Begin a pass of ``stage`` at zero."""
        for path in paths:
            # Built anew, not reset: what is reset under inference_mode cannot be added to outside of it.
            self._metrics[stage, path] = PolynomialTerms(self.num_terms, num_classes).to(device)
            if stage == "train":
                self._step_metrics[path] = PolynomialTerms(self.num_terms).to(device)

    def update(self, stage: str, seen: Seen) -> None:
        """Count the observations of a step."""
        for path, observation in seen:
            self._metrics[stage, path].update(observation)

    def compute(self, stage: str, path: str) -> dict[str, Tensor]:
        """Values of the pass over all processes, each of which must come here; the sums return to zero."""
        metric = self._metrics[stage, path]
        values = _compute(metric)
        metric.reset()  # a checkpoint that is saved from now on holds no finished pass
        return values

    def compute_step(self, path: str, seen: Seen) -> dict[str, Tensor]:
        """Values of a step over all processes, NaN if nothing counted in any; none if one process alone called no loss.

        With several processes this is a collective: each of them must come here.
        """
        metric = self._step_metrics[path]
        metric.reset()
        _update(metric, path, seen)
        if not metric.update_called and not metric.distributed_available_fn():
            return {}
        return _compute(metric)

    def state_dict(self, seen: Seen, *, sync: bool) -> dict[str, Tensor]:
        """Sums of the training pass, with those of a step that is not counted yet.

        With ``sync`` those over all processes, each of which must come here; without it those of this one.
        """
        state = {}
        for (stage, path), metric in self._metrics.items():
            if stage == "train":
                whole = deepcopy(metric)
                _update(whole, path, seen)
                with whole.sync_context(should_sync=sync):
                    state[path] = whole.sums.cpu().clone()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Keep saved sums until :meth:`restore`."""
        self._restored = dict(state)

    def restore(self, here: bool) -> None:
        """Go on from the saved sums in the training pass that has begun; ``here`` on one process only."""
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
    if not metric.update_called:  # torchmetrics warns, but restored sums and a process without a call are no mistake
        nothing = torch.zeros(0)
        metric.update(Observation(nothing, nothing, nothing.long(), torch.zeros(()), (0.0,), 0.0, None))
    values: dict[str, Tensor] = metric.compute()
    return values
