"""A LightningModule for image classification."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from polyloss_lightning._checks import check_choice, check_integer
from polyloss_lightning.losses import Poly1BCEWithLogitsLoss
from polyloss_lightning.models.metrics import Task, default_metrics
from polyloss_lightning.models.task_checks import check_batch, check_loss
from polyloss_lightning.provider import LossProvider

# With more classes, values of single classes are in `class_results` only: logging thousands of scalars takes seconds.
_MOST_LOGGED_CLASSES = 100


class ImageClassifier(LossProvider, LightningModule):
    """Trains any image classification network with any loss, and logs metrics that account for class imbalance.

    It logs ``train/loss``, and the following values for the validation part (``val``) and the test part (``test``):

    - for images of one class each (``task="multiclass"``): ``{stage}/balanced_accuracy``, the mean of
      ``{stage}/recall_class/{k}`` over the classes k that occur (recall of a class that does not occur is NaN),
      ``{stage}/macro_f1``, and ``{stage}/cross_entropy``;
    - for images with any number of labels (``task="multilabel"``): ``{stage}/mean_average_precision``, the mean over
      the labels that occur, ``{stage}/macro_f1``, ``{stage}/recall_class/{k}`` and ``{stage}/precision_class/{k}`` at
      the threshold 0.5, and ``{stage}/binary_cross_entropy``, the mean over the labels;
    - ``{stage}/pt``, the mean probability of the target class, or of the right answer for each label;
    - ``{stage}/calibration_error``, the expected calibration error: the mean distance between the probability of a
      prediction and the share of right answers among predictions of about that probability (15 bins);
    - ``{stage}/loss``, the training loss, averaged over batches, and your own ``metrics``.

    The (binary) cross-entropy is computed without epsilon, weights and smoothing, so that it can be compared between
    losses and between epochs with different epsilons. Metrics are exact over the whole part and all processes. Values
    of single classes are logged up to 100 classes; they are always in ``class_results[stage]``, together with the
    confusion matrix and the bins of the reliability diagram.

    Args:
        network: module that maps a batch of images to logits, ``(N, num_classes)``.
        num_classes: number of classes, or of labels. The ``polyloss`` command takes it from the data.
        loss_fn: module called as ``loss_fn(logits, target)``; None uses
            :class:`~polyloss_lightning.losses.Poly1CrossEntropyLoss`, or
            :class:`~polyloss_lightning.losses.Poly1BCEWithLogitsLoss` for several labels.
        optimizer: called with the parameters; returns the optimizer.
        lr_scheduler: called with the optimizer; returns a scheduler that steps every epoch. None keeps the learning
            rate constant.
        task: ``"multiclass"`` (one class per image) or ``"multilabel"`` (any number of labels per image).
        metrics: metrics of your own, by name. They are updated with probabilities and targets, and replace the default
            metric of the same name, for example to use another threshold.

    Shape:
        - batch: images and class indices, ``(N)``, or one number per label, ``(N, num_classes)``; in training also
          probabilities, ``(N, num_classes)``; for prediction, images alone are enough.
        - prediction: probabilities, ``(N, num_classes)``.

    Raises:
        TypeError: if ``network`` is missing, or ``loss_fn`` is not a module.
        ValueError: if ``num_classes`` is below 2 or ``task`` is unknown; at the first batch, if targets, logits or loss
            do not fit the task or the number of classes.

    Example:
        >>> import torch
        >>> from polyloss_lightning.models import SmallCNN
        >>> model = ImageClassifier(SmallCNN(num_classes=10), num_classes=10)
        >>> model(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        num_classes: int | None = None,
        loss_fn: nn.Module | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        task: Task = "multiclass",
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        check_choice("task", task, ("multiclass", "multilabel"))
        super().__init__(loss_fn=Poly1BCEWithLogitsLoss() if loss_fn is None and task == "multilabel" else loss_fn)
        if network is None:
            raise TypeError(
                "ImageClassifier needs `network`, a module that returns logits. A checkpoint of a model that was built "
                "in Python does not contain it: use load_from_checkpoint(..., network=...)"
            )
        check_integer("num_classes", num_classes, "an integer of at least 2", at_least=2)
        assert num_classes is not None
        # With objects in it, the checkpoint could not be loaded with weights_only=True ...
        self.save_hyperparameters(ignore=["network", "loss_fn", "optimizer", "lr_scheduler", "metrics"])
        if "_instantiator" in self.hparams:
            # ... but LightningCLI provides their configuration, from which load_from_checkpoint rebuilds them.
            self.save_hyperparameters()
        self.network = network
        self.num_classes = num_classes
        self.task = task
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        every: dict[str, Metric | MetricCollection] = {**default_metrics(task, num_classes), **(metrics or {})}
        # Metrics that happen to agree on the first batch would be merged into a compute group.
        self.val_metrics = MetricCollection(every, compute_groups=False)
        self.test_metrics = self.val_metrics.clone()
        self.class_results: dict[str, dict[str, Tensor]] = {}

    def setup(self, stage: str) -> None:
        """Compare the number of classes with that of the datamodule, and the loss with the task."""
        number = getattr(getattr(self.trainer, "datamodule", None), "num_classes", None)
        if isinstance(number, int) and number != self.num_classes:
            raise ValueError(f"`num_classes` of the model is {self.num_classes}, but the data have {number} classes")
        if stage != "predict":
            check_loss(self.task, self.loss_fn)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``images``."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, target = batch
        logits = self(images)
        if batch_idx == 0:
            check_batch(self.task, self.num_classes, logits, target, training=True)
        loss = self._loss(logits, target)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(images))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics, which an interrupted epoch may have left updated."""
        self.val_metrics.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update the metrics of the validation part."""
        self._evaluate("val", batch, batch_idx, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation part."""
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        """Reset the metrics, which an interrupted epoch may have left updated."""
        self.test_metrics.reset()

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update the metrics of the test part."""
        self._evaluate("test", batch, batch_idx, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test part."""
        self._log_metrics("test", self.test_metrics)

    def predict_step(self, batch: Tensor | tuple[Tensor, ...] | list[Tensor], batch_idx: int) -> Tensor:
        """Return the probabilities for a batch of images, with or without their targets."""
        return self._probabilities(self(batch if isinstance(batch, Tensor) else batch[0]))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and, if there is one, the scheduler with the metric that it monitors."""
        optimizer = self.make_optimizer(self.parameters())
        if self.make_lr_scheduler is None:
            return optimizer
        scheduler = self.make_lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": scheduler.monitor}}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _probabilities(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        return logits.softmax(dim=-1) if self.task == "multiclass" else logits.sigmoid()

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        # Data sets often store the labels of an image as integers, which torch's binary cross-entropy does not accept.
        several = self.task == "multilabel" and not target.is_floating_point()
        return self.compute_loss(logits, target.to(logits.dtype) if several else target)

    def _evaluate(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int, metrics: MetricCollection) -> None:
        images, target = batch
        logits = self(images)
        if batch_idx == 0:
            check_batch(self.task, self.num_classes, logits, target, training=False)
        metrics.update(self._probabilities(logits), target.long())
        if self.task == "multiclass":
            name, entropy = "cross_entropy", F.cross_entropy(logits.float(), target.long(), reduction="none")
        else:
            name = "binary_cross_entropy"
            entropy = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
        means = {"loss": self._loss(logits, target), name: entropy.mean(), "pt": entropy.neg().exp().mean()}
        self.log_dict({f"{stage}/{key}": mean for key, mean in means.items()}, batch_size=len(images), sync_dist=True)

    def _log_metrics(self, stage: str, metrics: MetricCollection) -> None:
        values: dict[str, Tensor] = metrics.compute()
        self.class_results[stage] = {name: value for name, value in values.items() if value.dim() > 0}
        main = "balanced_accuracy" if self.task == "multiclass" else "mean_average_precision"
        for name, value in values.items():
            if value.dim() == 0:
                self.log(f"{stage}/{name}", value, prog_bar=stage == "val" and name == main, sync_dist=True)
            elif value.shape == (self.num_classes,) and self.num_classes <= _MOST_LOGGED_CLASSES:
                self.log_dict({f"{stage}/{name}_class/{k}": entry for k, entry in enumerate(value)}, sync_dist=True)
