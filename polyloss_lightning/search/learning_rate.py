"""The callback that multiplies the learning rates of any module."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import lr_scheduler
from typing_extensions import override

from polyloss_lightning.callbacks.base import Callback

_GROUP_KEYS = ("lr", "initial_lr", "max_lr", "min_lr")
# Attributes of torch's schedulers that contain learning rates, beside base_lrs. All of these schedulers are
# homogeneous: with every learning rate multiplied by a factor, so is what they set.
_ATTRIBUTES: dict[type, tuple[str, ...]] = {
    lr_scheduler.LambdaLR: (),
    lr_scheduler.MultiplicativeLR: (),
    lr_scheduler.StepLR: (),
    lr_scheduler.MultiStepLR: (),
    lr_scheduler.ConstantLR: (),
    lr_scheduler.LinearLR: (),
    lr_scheduler.ExponentialLR: (),
    lr_scheduler.PolynomialLR: (),
    lr_scheduler.OneCycleLR: (),
    lr_scheduler.CosineAnnealingLR: ("eta_min",),
    lr_scheduler.CosineAnnealingWarmRestarts: ("eta_min",),
    lr_scheduler.CyclicLR: ("max_lrs",),
    lr_scheduler.ReduceLROnPlateau: ("min_lrs",),
}
_COMPOSED = (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)


class UnscalableSchedulerError(ValueError):
    """A scheduler keeps its learning rates in an unknown place."""


class ScaleLearningRate(Callback):
    """Multiplies all learning rates by a factor, after ``configure_optimizers`` and before the first step.

    It acts on ``lr``, ``initial_lr``, ``max_lr`` and ``min_lr`` of every parameter group, and on the learning rates
    that the schedulers keep (such as ``base_lrs``). A run that resumes takes the scaled values from its checkpoint.

    Args:
        factor: the factor.

    Raises:
        ValueError: if ``factor`` is not a finite number above 0.
        UnscalableSchedulerError: at the start of training, if a scheduler is not one of torch's.

    Example:
        >>> trainer = pl.Trainer(callbacks=[ScaleLearningRate(2.0)], logger=False, enable_checkpointing=False)
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"`factor` must be a finite number above 0, got {factor}")
        self.factor = factor

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        for scheduler in schedulers:
            _check(scheduler)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for key in _GROUP_KEYS:
                    if key in group:
                        group[key] = self._scaled(group[key])
        for scheduler in schedulers:
            self._scale(scheduler)

    def _scale(self, scheduler: Any) -> None:
        for part in getattr(scheduler, "_schedulers", ()):
            self._scale(part)
        for name in ("base_lrs", "_last_lr", *_attributes(scheduler)):
            if hasattr(scheduler, name):
                setattr(scheduler, name, self._scaled(getattr(scheduler, name)))

    def _scaled(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._scaled(entry) for entry in value]
        return value.mul_(self.factor) if isinstance(value, torch.Tensor) else value * self.factor


def _attributes(scheduler: Any) -> tuple[str, ...]:
    return next((names for cls, names in _ATTRIBUTES.items() if _is_plain(scheduler, cls)), ())


def _is_plain(scheduler: Any, cls: type) -> bool:
    # A subclass that computes learning rates in its own way may keep them anywhere.
    kind = type(scheduler)
    return isinstance(scheduler, cls) and all(
        getattr(kind, name, None) is getattr(cls, name, None) for name in ("step", "get_lr")
    )


def _check(scheduler: Any) -> None:
    if any(_is_plain(scheduler, cls) for cls in _COMPOSED):
        for part in scheduler._schedulers:
            _check(part)
    elif not any(_is_plain(scheduler, cls) for cls in _ATTRIBUTES):
        raise UnscalableSchedulerError(
            f"the learning rates of {type(scheduler).__name__} cannot be scaled: it is not one of torch's schedulers, "
            "so it is unknown where it keeps them. Leave out these controls with `--learning_rate_factors` without a "
            "value, and add another learning rate with `--control`, such as `--control model.init_args.lr=0.01`"
        )
