"""Classification metrics that are exact over a whole part of the data."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassF1Score, MulticlassRecall


class ClassificationMetrics(nn.Module):
    """Balanced accuracy, macro F1, plain cross-entropy, mean Pt and the recall of each class, over many batches.

    Every value is exact over all samples and all processes, no matter how the samples are split into batches.
    :meth:`update` does not synchronize with the device.

    Args:
        num_classes: number of classes.

    Example:
        >>> import torch
        >>> metrics = ClassificationMetrics(num_classes=3)
        >>> metrics.update(torch.eye(3)[[0, 0, 1]] * 9, torch.tensor([0, 1, 1]))
        >>> {name: round(float(value), 3) for name, value in metrics.compute().items()}
        {'balanced_accuracy': 0.75, 'macro_f1': 0.667, 'cross_entropy': 3.0, 'pt': 0.667,
         'recall_class/0': 1.0, 'recall_class/1': 0.5, 'recall_class/2': nan}
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # Validating the arguments and searching for NaN would synchronize with the device in every batch.
        self.recall = MulticlassRecall(num_classes, average=None, zero_division=float("nan"), validate_args=False)
        self.macro_f1 = MulticlassF1Score(num_classes, average="macro", validate_args=False)
        self.cross_entropy = MeanMetric(nan_strategy="disable")
        self.pt = MeanMetric(nan_strategy="disable")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: logits ``(N, C)`` and class indices ``(N)``."""
        cross_entropy = F.cross_entropy(logits.float(), target, reduction="none")
        self.recall.update(logits, target)
        self.macro_f1.update(logits, target)
        self.cross_entropy.update(cross_entropy)
        self.pt.update(cross_entropy.neg().exp())

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics as scalars by name. A class without samples has recall NaN and is excluded from means."""
        recall: Tensor = self.recall.compute()
        return {
            "balanced_accuracy": recall.nanmean(),
            "macro_f1": self.macro_f1.compute(),
            "cross_entropy": self.cross_entropy.compute(),
            "pt": self.pt.compute(),
            **{f"recall_class/{k}": value for k, value in enumerate(recall)},
        }

    def reset(self) -> None:
        """Reset all metrics."""
        for metric in (self.recall, self.macro_f1, self.cross_entropy, self.pt):
            metric.reset()
