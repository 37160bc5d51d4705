"""The metrics that an image classifier computes for each task."""

from typing import Literal, TypeAlias

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassRecall,
    MultilabelAveragePrecision,
    MultilabelF1Score,
    MultilabelRecall,
)

Task: TypeAlias = Literal["multiclass", "multilabel"]

# A confusion matrix of 1,000 classes takes 8 MB on the device.
_MOST_CLASSES_OF_A_CONFUSION_MATRIX = 1000


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


def default_metrics(task: Task, num_classes: int) -> dict[str, Metric]:
    """Return the metrics of ``task`` by name. They are updated with probabilities and targets.

    A metric that returns one value per class is logged as ``{name}_class/{k}``.

    Example:
        >>> list(default_metrics("multiclass", 3)), list(default_metrics("multilabel", 3))
        (['balanced_accuracy', 'macro_f1', 'recall', 'confusion_matrix'],
         ['mean_average_precision', 'macro_f1', 'recall'])
    """
    # Validating the arguments would synchronize with the device in every batch; the classifier checks the first batch.
    if task == "multilabel":
        return {
            "mean_average_precision": MultilabelAveragePrecision(num_classes, validate_args=False),
            "macro_f1": MultilabelF1Score(num_classes, validate_args=False),
            "recall": MultilabelRecall(num_classes, average=None, zero_division=float("nan"), validate_args=False),
        }
    metrics: dict[str, Metric] = {
        "balanced_accuracy": BalancedAccuracy(num_classes),
        "macro_f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
        "recall": MulticlassRecall(num_classes, average=None, zero_division=float("nan"), validate_args=False),
    }
    if num_classes <= _MOST_CLASSES_OF_A_CONFUSION_MATRIX:
        metrics["confusion_matrix"] = MulticlassConfusionMatrix(num_classes, validate_args=False)
    return metrics
