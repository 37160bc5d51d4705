"""A LightningModule for image classification."""

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from polyloss_lightning.models.metrics import ClassificationMetrics
from polyloss_lightning.provider import LossProvider


class ImageClassifier(LossProvider, LightningModule):
    """Trains any image classification network with any loss, and logs metrics that account for class imbalance.

    It logs ``train/loss``, and the following values for the validation part (``val``) and the test part (``test``):

    - ``{stage}/balanced_accuracy``, the mean of ``{stage}/recall_class/{k}`` over the classes k that occur
      (recall of a class that does not occur is NaN), and ``{stage}/macro_f1``;
    - ``{stage}/cross_entropy``, without epsilon, weights and smoothing, so that it can be compared between losses
      and between epochs with different epsilons;
    - ``{stage}/pt``, the mean probability of the target class;
    - ``{stage}/loss``, the training loss, averaged over batches. All other values are exact over the whole part.

    Args:
        network: module that maps a batch of images to logits, ``(N, num_classes)``.
        num_classes: number of classes.
        loss_fn: module called as ``loss_fn(logits, target)``; None uses
            :class:`~polyloss_lightning.losses.Poly1CrossEntropyLoss`.
        optimizer: called with the parameters; returns the optimizer.
        lr_scheduler: called with the optimizer; returns a scheduler that steps every epoch. None keeps the learning
            rate constant.

    Shape:
        - batch: ``(images, class indices of shape (N))``; for prediction, images alone are enough.
        - prediction: probabilities, ``(N, num_classes)``.

    Raises:
        TypeError: if ``loss_fn`` is not a module.
        ValueError: if ``num_classes`` is below 2.

    Example:
        >>> import torch
        >>> from polyloss_lightning.models import SmallCNN
        >>> model = ImageClassifier(SmallCNN(num_classes=10), num_classes=10)
        >>> model(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        loss_fn: nn.Module | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(loss_fn=loss_fn)
        if num_classes < 2:
            raise ValueError(f"`num_classes` must be at least 2, got {num_classes}")
        # With objects in it, the checkpoint could not be loaded with weights_only=True ...
        self.save_hyperparameters(ignore=["network", "loss_fn", "optimizer", "lr_scheduler"])
        if "_instantiator" in self.hparams:
            # ... but LightningCLI provides their configuration, from which load_from_checkpoint rebuilds them.
            self.save_hyperparameters()
        self.network = network
        self.num_classes = num_classes
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.val_metrics = ClassificationMetrics(num_classes)
        self.test_metrics = ClassificationMetrics(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``images``."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, target = batch
        loss = self.compute_loss(self(images), target)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(images))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics, which an interrupted epoch may have left updated."""
        self.val_metrics.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update the metrics of the validation part."""
        loss = self._evaluate(batch, self.val_metrics)
        self.log("val/loss", loss, batch_size=len(batch[0]), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation part."""
        metrics = self.val_metrics.compute()
        self.log("val/balanced_accuracy", metrics.pop("balanced_accuracy"), prog_bar=True, sync_dist=True)
        self.log_dict({f"val/{name}": value for name, value in metrics.items()}, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Reset the metrics, which an interrupted epoch may have left updated."""
        self.test_metrics.reset()

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update the metrics of the test part."""
        loss = self._evaluate(batch, self.test_metrics)
        self.log("test/loss", loss, batch_size=len(batch[0]), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test part."""
        self.log_dict({f"test/{name}": value for name, value in self.test_metrics.compute().items()}, sync_dist=True)

    def predict_step(self, batch: Tensor | tuple[Tensor, ...] | list[Tensor], batch_idx: int) -> Tensor:
        """Return the probabilities for a batch of images, with or without their targets."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        logits: Tensor = self(images)
        return logits.float().softmax(dim=-1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and, if there is one, the scheduler with the metric that it monitors."""
        optimizer = self.make_optimizer(self.parameters())
        if self.make_lr_scheduler is None:
            return optimizer
        scheduler = self.make_lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": scheduler.monitor}}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _evaluate(self, batch: tuple[Tensor, Tensor], metrics: ClassificationMetrics) -> Tensor:
        images, target = batch
        logits = self(images)
        metrics.update(logits, target)
        return self.compute_loss(logits, target)
