"""Checks that the targets, the logits and the loss of a classifier fit its task."""

from torch import Tensor, nn

from polyloss_lightning.losses import (
    Poly1BCEWithLogitsLoss,
    Poly1CrossEntropyLoss,
    Poly1FocalLoss,
    Poly1SigmoidFocalLoss,
)
from polyloss_lightning.models.metrics import Task

_ONE_CLASS = (Poly1CrossEntropyLoss, Poly1FocalLoss, nn.CrossEntropyLoss)
_SEVERAL_LABELS = (Poly1BCEWithLogitsLoss, nn.BCEWithLogitsLoss)


def check_loss(task: Task, loss_fn: nn.Module) -> None:
    """Raise ``ValueError`` if ``loss_fn`` is a loss of torch or of this package that is meant for the other task."""
    name = type(loss_fn).__name__
    if task == "multiclass" and isinstance(loss_fn, _SEVERAL_LABELS):
        raise ValueError(
            f"{name} needs one target per label, but `task` is 'multiclass': use task='multilabel' for images with "
            f"several labels, or a loss such as {Poly1CrossEntropyLoss.__name__}"
        )
    if task == "multilabel" and isinstance(loss_fn, _ONE_CLASS):
        raise ValueError(
            f"{name} is for images of one class each, but `task` is 'multilabel': use a loss such as "
            f"{Poly1BCEWithLogitsLoss.__name__} or {Poly1SigmoidFocalLoss.__name__}"
        )


def check_batch(task: Task, num_classes: int, logits: Tensor, target: Tensor, *, training: bool) -> None:
    """Raise an error unless ``logits`` and ``target`` fit the task. This synchronizes with the device.

    Args:
        task: task of the classifier.
        num_classes: number of classes, or of labels.
        logits: output of the network.
        target: targets of the batch.
        training: allow probabilities as targets (mixup, label smoothing), which metrics cannot use.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(f"the network must return a tensor of logits, got a {type(logits).__name__}")
    shape = tuple(target.shape)
    if logits.dim() != 2:
        raise ValueError(f"the network must return logits of shape (N, {num_classes}), got {tuple(logits.shape)}")
    if logits.shape[1] != num_classes:
        raise ValueError(
            f"the network returns {logits.shape[1]} logits per image, but `num_classes` of the model is {num_classes}"
        )
    if task == "multilabel":
        kind = "between 0 and 1" if training else "0 or 1"
        right = (target >= 0) & (target <= 1) if training else (target == 0) | (target == 1)
        if shape != tuple(logits.shape) or not bool(right.all()):
            raise ValueError(
                f"`task` is 'multilabel', so a target must have shape (N, {num_classes}) and values {kind}, got shape "
                f"{shape}" + (f" with values from {target.min()} to {target.max()}" if target.numel() else "")
            )
        return
    if target.is_floating_point():
        if not training:
            raise ValueError(
                "`task` is 'multiclass', so validation and test need class indices of shape (N) as targets, got "
                f"{target.dtype} of shape {shape} (images with several labels need task='multilabel')"
            )
        if shape != tuple(logits.shape) or not bool(((target.sum(1) - 1).abs() < 1e-2).all()):
            raise ValueError(
                f"`task` is 'multiclass', so a target of floats must have shape (N, {num_classes}) and rows that add "
                f"up to 1, got shape {shape} (images with several labels need task='multilabel')"
            )
    elif target.dim() != 1:
        raise ValueError(
            f"`task` is 'multiclass', so targets must be class indices of shape (N), got {target.dtype} of shape "
            f"{shape} (images with several labels need task='multilabel')"
        )
    elif target.numel() and int(target.max()) >= num_classes:
        raise ValueError(
            f"the data have a target of class {int(target.max())}, but `num_classes` of the model is {num_classes}"
        )
    elif target.numel() and int(target.min()) < 0 and not training:
        raise ValueError(
            f"the data have a target of class {int(target.min())}: leave samples without a class out of validation and "
            "test"
        )
