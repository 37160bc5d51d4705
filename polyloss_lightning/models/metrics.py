"""The metrics that an image classifier computes for each task."""

import warnings
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassRecall,
    MultilabelAveragePrecision,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)
from torchmetrics.utilities import dim_zero_cat

Task: TypeAlias = Literal["multiclass", "multilabel"]

# A confusion matrix of 1,000 classes takes 8 MB on the device.
_MOST_CLASSES_OF_A_CONFUSION_MATRIX = 1000

# Bins of the calibration error and of the reliability diagram: torchmetrics' default.
_BINS = 15


class BalancedAccuracy(MulticlassRecall):
    """The mean recall of the classes that occur, as :func:`sklearn.metrics.balanced_accuracy_score`.

    (torchmetrics' macro recall counts a class that is predicted but does not occur as 0.)

    Args:
        num_classes: number of classes.

    Example:
        >>> import torch
        >>> BalancedAccuracy(num_classes=3)(torch.tensor([0, 2, 1, 1]), torch.tensor([0, 0, 1, 1]))
        tensor(0.7500)
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average=None, zero_division=float("nan"), validate_args=False)

    def compute(self) -> Tensor:
        """Return the mean."""
        recall: Tensor = super().compute()
        return recall.nanmean()


class MeanAveragePrecision(MultilabelAveragePrecision):
    """The mean average precision of the labels that occur.

    (torchmetrics' macro average counts a label without positive samples as 0.)

    Args:
        num_labels: number of labels.

    Example:
        >>> metric = MeanAveragePrecision(num_labels=3)
        >>> metric(torch.tensor([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3]]), torch.tensor([[0, 0, 0], [1, 1, 0]]))
        tensor(0.7500)
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__(num_labels, average="none", validate_args=False)

    def compute(self) -> Tensor:  # type: ignore[override]  # as in torchmetrics
        """Return the mean; NaN if no label occurs."""
        occurs = dim_zero_cat(self.target).sum(dim=0) > 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No positive samples", UserWarning)
            precision: Tensor = super().compute()
        return precision[occurs].mean()


class ReliabilityBins(Metric):
    """The contents of a reliability diagram: predictions in bins of equal width of their probability.

    For one class per image, a prediction is the most probable class. For several labels, every label of every image is
    one, and it is right if the image has the label.

    Args:
        num_bins: number of bins between 0 and 1.

    Shape:
        - probabilities: ``(N, C)``.
        - target: class indices, ``(N)``, or 0 and 1, ``(N, C)``.
        - output: ``(3, num_bins)``. The rows contain the number of predictions, the sum of their probabilities, and the
          number of right predictions.

    Example:
        >>> ReliabilityBins(2)(torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]), torch.tensor([0, 1, 1]))
        tensor([[0., 3.],
                [0., 2.],
                [0., 2.]])
    """

    is_differentiable, higher_is_better, full_state_update = False, None, False
    bins: Tensor

    def __init__(self, num_bins: int = _BINS) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.add_state("bins", torch.zeros(3, num_bins), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add the predictions of a batch."""
        if target.dim() < probabilities.dim():
            probabilities, predicted = probabilities.max(dim=1)
            right = predicted == target
        else:
            right = target > 0
        probability = probabilities.flatten().float()
        # A NaN of a diverged model is in no bin.
        index = (probability * self.num_bins).floor().clamp(max=self.num_bins - 1)
        member = index[:, None] == torch.arange(self.num_bins, device=index.device)
        rows = [torch.ones_like(probability), probability.nan_to_num(), right.flatten().float()]
        self.bins += torch.stack(rows) @ member.float()

    def compute(self) -> Tensor:
        """Return the bins."""
        return self.bins


def default_metrics(task: Task, num_classes: int) -> dict[str, Metric]:
    """Return the metrics of ``task`` by name. They are updated with probabilities and targets.

    A metric that returns one value per class is logged as ``{name}_class/{k}``.

    Example:
        >>> list(default_metrics("multiclass", 3)), list(default_metrics("multilabel", 3))
        (['balanced_accuracy', 'macro_f1', 'calibration_error', 'recall', 'reliability', 'confusion_matrix'],
         ['mean_average_precision', 'macro_f1', 'calibration_error', 'recall', 'precision', 'reliability'])
    """
    # Validating the arguments would synchronize with the device in every batch; the classifier checks the first batch.
    per_class: dict[str, Any] = {"average": None, "zero_division": float("nan"), "validate_args": False}
    if task == "multilabel":
        return {
            "mean_average_precision": MeanAveragePrecision(num_classes),
            "macro_f1": MultilabelF1Score(num_classes, validate_args=False),
            "calibration_error": BinaryCalibrationError(_BINS, validate_args=False),
            "recall": MultilabelRecall(num_classes, **per_class),
            "precision": MultilabelPrecision(num_classes, **per_class),
            "reliability": ReliabilityBins(_BINS),
        }
    metrics: dict[str, Metric] = {
        "balanced_accuracy": BalancedAccuracy(num_classes),
        "macro_f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
        "calibration_error": MulticlassCalibrationError(num_classes, _BINS, validate_args=False),
        "recall": MulticlassRecall(num_classes, **per_class),
        "reliability": ReliabilityBins(_BINS),
    }
    if num_classes <= _MOST_CLASSES_OF_A_CONFUSION_MATRIX:
        metrics["confusion_matrix"] = MulticlassConfusionMatrix(num_classes, validate_args=False)
    return metrics
