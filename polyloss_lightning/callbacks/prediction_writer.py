"""The callback that writes predictions to a CSV file."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from torch.utils.data import Subset
from typing_extensions import override

from polyloss_lightning._checks import as_number, check_integer
from polyloss_lightning.callbacks.base import Callback


class _Batch(NamedTuple):
    dataloader: int
    indices: list[int]
    names: list[str]
    values: Tensor
    classes: Tensor | None  # the classes of the columns of `values`; None: every class in order
    predicted: list[list[int]]
    targets: list[list[int]] | None


class PredictionWriter(Callback, BasePredictionWriter):
    """Writes the predictions of ``trainer.predict`` to a CSV file, one row per sample in the order of the data set.

    ``predict_step`` must return probabilities, ``(N, C)``, one column per class. The columns are

    - ``file``, if the data set has an attribute ``samples`` of ``(path, ...)`` as torchvision's ``ImageFolder``; else
      ``index``, the position in the data set;
    - ``predicted``, the most probable class; if the module has ``task="multilabel"``, all labels with a probability of
      at least ``threshold``, separated by ``;``;
    - ``target``, if the batches are ``(input, target, ...)``;
    - ``probability_{class}`` for each class, or with ``top_k`` only ``class_1``, ``probability_1``, ``class_2`` ...

    With several processes, the first one collects and writes all rows.

    Args:
        path: path of the file; None is ``predictions.csv`` in the folder of the logs, or in ``default_root_dir``.
        top_k: write only that many of the most probable classes; None writes all probabilities.
        class_names: names of the classes; None takes the ``class_names`` of the datamodule, or the indices.
        threshold: probability from which a label is predicted, between 0 and 1; only for several labels per image.

    Attributes:
        written: path of the file after a prediction.

    Raises:
        TypeError: at the first batch, if ``predict_step`` returns something other than a tensor of shape ``(N, C)``.
        ValueError: if ``top_k`` is below 1, or ``threshold`` is not between 0 and 1; at the first batch, if the values
            are no probabilities, or ``class_names`` does not have one entry per class.

    Example:
        >>> trainer = pl.Trainer(callbacks=[PredictionWriter("predictions.csv", top_k=5)], logger=False)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        top_k: int | None = None,
        class_names: Sequence[str] | None = None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(write_interval="batch")
        if top_k is not None:
            check_integer("top_k", top_k, "None or an integer of at least 1", at_least=1)
        self.threshold = as_number("threshold", threshold, within="between 0 and 1", at_least=0, at_most=1)
        self.path, self.top_k = path, top_k
        self.class_names = None if class_names is None else list(class_names)
        self.written: Path | None = None
        self._batches: list[_Batch] = []

    @override
    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._batches = []

    @override
    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the predictions of a batch."""
        probabilities = _checked(prediction, first=not self._batches)
        if not batch_indices:  # an iterable data set
            start = sum(len(kept.indices) for kept in self._batches if kept.dataloader == dataloader_idx)
            batch_indices = range(start, start + len(probabilities))
        several = getattr(pl_module, "task", "multiclass") == "multilabel"
        values, classes = probabilities, None
        if self.top_k is not None:
            values, classes = probabilities.topk(min(self.top_k, probabilities.shape[1]))
        predicted = (
            _labels(probabilities >= self.threshold) if several else [[k] for k in probabilities.argmax(1).tolist()]
        )
        dataset = _dataset(trainer, dataloader_idx)
        names = [_file(dataset, index) for index in batch_indices]
        targets = _targets(batch, several)
        self._batches.append(_Batch(dataloader_idx, list(batch_indices), names, values, classes, predicted, targets))

    @override
    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_predict_epoch_end(trainer, pl_module)
        batches = self._batches
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, batches)
            batches = [batch for part in gathered for batch in part]
        self._batches = []
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        self.written = folder / "predictions.csv" if self.path is None else Path(self.path)
        if trainer.is_global_zero and batches:
            given = self.class_names or getattr(getattr(trainer, "datamodule", None), "class_names", None)
            _write(self.written, batches, given, self.top_k)


def _checked(prediction: Any, *, first: bool) -> Tensor:
    if not isinstance(prediction, Tensor) or prediction.dim() != 2:
        shown = (
            f"a tensor of shape {tuple(prediction.shape)}" if isinstance(prediction, Tensor) else repr(prediction)[:80]
        )
        raise TypeError(f"PredictionWriter needs `predict_step` to return probabilities of shape (N, C), got {shown}")
    probabilities = prediction.detach().float().cpu()
    # Checked once only. A NaN of a diverged model is written as it is.
    if first and bool(((probabilities < 0) | (probabilities > 1 + 1e-4)).any()):
        raise ValueError(
            "PredictionWriter needs `predict_step` to return probabilities, got values from "
            f"{probabilities.min():.3g} to {probabilities.max():.3g}: apply softmax or sigmoid to logits"
        )
    return probabilities


def _labels(chosen: Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in chosen]


def _targets(batch: Any, several: bool) -> list[list[int]] | None:
    target = batch[1] if isinstance(batch, (list, tuple)) and len(batch) > 1 else None
    if not isinstance(target, Tensor) or target.dim() != (2 if several else 1):
        return None
    return _labels(target > 0.5) if several else [[int(k)] for k in target.tolist()]


def _dataset(trainer: pl.Trainer, dataloader_idx: int) -> Any:
    loaders = trainer.predict_dataloaders
    loader = loaders[dataloader_idx] if isinstance(loaders, (list, tuple)) else loaders
    return getattr(loader, "dataset", None)


def _file(dataset: Any, index: int) -> str:
    """Return the path of a sample, or an empty string."""
    while isinstance(dataset, Subset):
        dataset, index = dataset.dataset, dataset.indices[index]
    samples = getattr(dataset, "samples", None)
    sample = samples[index] if isinstance(samples, (list, tuple)) else None
    return str(sample[0]) if isinstance(sample, (list, tuple)) and isinstance(sample[0], (str, os.PathLike)) else ""


def _write(path: Path, batches: Sequence[_Batch], class_names: Sequence[str] | None, top_k: int | None) -> None:
    classes = batches[0].values.shape[1] if top_k is None else None
    if class_names is not None and classes is not None and len(class_names) != classes:
        raise ValueError(f"`class_names` must have one entry for each of the {classes} classes, got {len(class_names)}")

    def name(index: int) -> str:
        return str(index) if class_names is None else str(class_names[index])

    files = any(batch.names and batch.names[0] for batch in batches)
    has_target = all(batch.targets is not None for batch in batches)
    header = ["file" if files else "index", "predicted", *(["target"] if has_target else [])]
    if classes is None:
        number = batches[0].values.shape[1]
        header += [column for rank in range(1, number + 1) for column in (f"class_{rank}", f"probability_{rank}")]
    else:
        header += [f"probability_{name(index)}" for index in range(classes)]
    rows = []
    for batch in batches:
        for position, index in enumerate(batch.indices):
            row = [batch.names[position] if files else str(index), ";".join(map(name, batch.predicted[position]))]
            if has_target and batch.targets is not None:
                row.append(";".join(map(name, batch.targets[position])))
            for column, value in enumerate(batch.values[position].tolist()):
                row += [] if batch.classes is None else [name(int(batch.classes[position, column]))]
                row.append(f"{value:.6g}")
            rows.append((batch.dataloader, index, row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(row for _, _, row in sorted(rows, key=lambda item: item[:2]))
