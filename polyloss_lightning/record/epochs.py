"""What a record contains: values of a run by pass, loss and class."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ClassRecord:
    """Values with one entry per class.

    Attributes:
        weight: total weight of the class's entries.
        pt: weighted mean of Pt; NaN for a class without weight.
        first_term_share: weighted mean of the first term's share of the gradient; NaN for a class without weight.
        first_term_gradient: sum over the class's entries of weight times the first term's part of the gradient
            in Pt, in magnitude, divided by the denominator of the loss.
    """

    weight: Sequence[float]
    pt: Sequence[float]
    first_term_share: Sequence[float]
    first_term_gradient: Sequence[float]


@dataclass(frozen=True)
class EpochRecord:
    """One pass over a stage, for one loss.

    Attributes:
        stage: ``train``, ``val`` or ``test``.
        loss: path of the loss in the module, or name of the function that an override replaces.
        epoch: the trainer's epoch.
        step: the trainer's global step at the end of the pass.
        epsilon: epsilon at the end of the pass, one number per perturbed coefficient.
        gamma: focusing exponent.
        num_terms: number of terms that the loss keeps; None for the whole series.
        metrics: the scalars of :class:`~polyloss_lightning.metrics.PolynomialTerms` by name.
        pt_histogram: weight of the entries in each of 50 equal bins of Pt in [0, 1].
        classes: the values per class, if the run recorded them.
    """

    stage: str
    loss: str
    epoch: int
    step: int
    epsilon: Sequence[float]
    gamma: float
    num_terms: int | None
    metrics: dict[str, float]
    pt_histogram: Sequence[float]
    classes: ClassRecord | None = None


@dataclass(frozen=True)
class Record:
    """The contents of the record of a run.

    Attributes:
        class_counts: number of training samples of each class, if known.
        epochs: the passes in the order in which they ended.
        class_names: name of each class, if known.
    """

    class_counts: Sequence[float] | None
    epochs: list[EpochRecord]
    class_names: Sequence[str] | None = None

    def select(self, stage: str | None = None, loss: str | None = None) -> list[EpochRecord]:
        """Return the passes of ``stage`` and ``loss``; None selects all."""
        return [e for e in self.epochs if stage in (None, e.stage) and loss in (None, e.loss)]
