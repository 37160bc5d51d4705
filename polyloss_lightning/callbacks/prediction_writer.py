"""The callback that writes predictions to a CSV file."""

import csv
import io
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import Subset
from typing_extensions import override

from polyloss_lightning import _files
from polyloss_lightning._checks import as_number, check_integer
from polyloss_lightning.callbacks.base import Callback
from polyloss_lightning.callbacks.monitor.class_values import given_names
from polyloss_lightning.callbacks.trainer.find_losses import find_callbacks
from polyloss_lightning.callbacks.trainer.log_dir import log_dir


class _Row(NamedTuple):
    dataloader: int
    sample: int  # its index in the data set
    file: str  # empty if the data set has none
    predicted: str
    target: str | None
    classes: list[str]
    probabilities: list[float]


class PredictionWriter(Callback, BasePredictionWriter):
    """Writes the predictions of ``trainer.predict`` to a CSV file, one row per sample in the order of the data set.

    ``predict_step`` must return probabilities, ``(N, C)``, one column per class. The columns are

    - ``dataloader``, the position of the dataloader, if there are several;
    - ``file``, if the data set has an attribute ``samples`` of ``(path, ...)`` as torchvision's ``ImageFolder``;
    - ``index``, the position in the data set, if there are samples without a file;
    - ``predicted``, the most probable class; if the module has ``task="multilabel"``, all labels with a probability of
      at least ``threshold``, separated by ``;``;
    - ``target``, if the batches are ``(input, target, ...)`` and the targets are class indices, or with
      ``task="multilabel"`` one value per class;
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
        ValueError: if ``top_k`` is below 1, or ``threshold`` is not between 0 and 1; when a prediction starts, if the
            Trainer has another PredictionWriter with this ``path``, or this one twice; at the first batch, if the
            values are not probabilities, or ``class_names`` does not have one entry per class.
        IsADirectoryError: when a prediction starts, if ``path`` is a folder.

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
        self.written: str | None = None
        self._rows: list[_Row] = []
        self._names: list[str] = []

    @override
    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._rows, self._names = [], []
        # Checked before the predictions, which may take hours.
        if sum(other.path == self.path for other in find_callbacks(trainer, PredictionWriter)) > 1:
            raise ValueError(
                "several PredictionWriters in `callbacks` write the same file, "
                f"{'predictions.csv' if self.path is None else self.path}: keep one of them, or give each a `path`"
            )
        if self.path is not None and _files.is_dir(self.path):
            raise IsADirectoryError(f"`path` of PredictionWriter must be that of a file, got the folder {self.path}")

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
        probabilities = _checked(prediction, first=not self._rows)
        number = probabilities.shape[1]
        if len(self._names) != number:  # at the first batch
            given = self.class_names or given_names(trainer) or range(number)
            if len(given) != number:
                raise ValueError(
                    f"`class_names` must have one entry for each of the {number} classes, got {len(given)}"
                )
            self._names = [str(name) for name in given]
        names = self._names

        multilabel = getattr(pl_module, "task", "multiclass") == "multilabel"
        chosen = probabilities >= self.threshold if multilabel else probabilities.argmax(1)
        predicted = _labels(chosen, names)
        target: Any = batch[1] if isinstance(batch, (list, tuple)) and len(batch) > 1 else None
        is_label = isinstance(target, Tensor) and target.shape == chosen.shape
        if is_label and target.dim() == 1:
            is_label = not target.is_floating_point()  # else it is the target of a regression, or a soft one
        targets = _labels(target, names) if is_label else [None] * len(predicted)
        values, classes = probabilities, [names] * len(predicted)
        if self.top_k is not None:
            values, top = probabilities.topk(min(self.top_k, number))
            classes = [[names[k] for k in row] for row in top.tolist()]

        if not batch_indices:  # an iterable data set
            is_first = not self._rows or self._rows[-1].dataloader != dataloader_idx
            start = 0 if is_first else self._rows[-1].sample + 1
            batch_indices = range(start, start + len(predicted))
        dataset = getattr(_loaders(trainer)[dataloader_idx], "dataset", None)
        files = [_file(dataset, index) for index in batch_indices]
        of_samples = zip(batch_indices, files, predicted, targets, classes, values.tolist(), strict=True)
        self._rows += [_Row(dataloader_idx, *of_sample) for of_sample in of_samples]

    @override
    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rows, self._rows = self._rows, []
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        self.written = _files.join(log_dir(trainer), "predictions.csv") if self.path is None else os.fspath(self.path)
        if trainer.is_global_zero and rows:
            rows.sort(key=lambda row: (row.dataloader, row.sample))
            _write(self.written, rows, several=len(_loaders(trainer)) > 1, only_top=self.top_k is not None)


def _loaders(trainer: pl.Trainer) -> list[Any]:
    """Return the dataloaders in the order of ``dataloader_idx``; they may be in a list, a dict, or both."""
    return list(CombinedLoader(trainer.predict_dataloaders, "sequential").flattened)


def _checked(output: Any, *, first: bool) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() != 2:
        got = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else repr(output)[:80]
        raise TypeError(f"PredictionWriter needs `predict_step` to return probabilities of shape (N, C), got {got}")
    probabilities = output.detach().float().cpu()
    # Checked once only. A NaN of a diverged model is written as it is.
    if first and bool(((probabilities < 0) | (probabilities > 1 + 1e-4)).any()):
        raise ValueError(
            "PredictionWriter needs `predict_step` to return probabilities, got values from "
            f"{probabilities.min():.3g} to {probabilities.max():.3g}: apply softmax or sigmoid to logits"
        )
    return probabilities


def _labels(classes: Tensor, names: Sequence[str]) -> list[str]:
    """Return the label of each sample, given as a class index or as a value per class, which is above 0.5 if chosen."""
    if classes.dim() == 1:
        indices = [int(k) for k in classes.tolist()]
        return [names[k] if 0 <= k < len(names) else str(k) for k in indices]  # targets to ignore have no name
    return [";".join(names[k] for k in row.nonzero().flatten().tolist()) for row in classes > 0.5]


def _file(dataset: Any, index: int) -> str:
    """Return the path of a sample, or an empty string."""
    while isinstance(dataset, Subset):
        dataset, index = dataset.dataset, dataset.indices[index]
    samples = getattr(dataset, "samples", None)
    sample = samples[index] if isinstance(samples, (list, tuple)) else None
    return str(sample[0]) if isinstance(sample, (list, tuple)) and isinstance(sample[0], (str, os.PathLike)) else ""


def _write(path: str, rows: Sequence[_Row], *, several: bool, only_top: bool) -> None:
    columns: dict[str, list[Any]] = {"dataloader": [row.dataloader for row in rows]} if several else {}
    if any(row.file for row in rows):
        columns["file"] = [row.file for row in rows]
    if not all(row.file for row in rows):
        columns["index"] = [row.sample for row in rows]
    columns["predicted"] = [row.predicted for row in rows]
    if all(row.target is not None for row in rows):
        columns["target"] = [row.target for row in rows]
    header = list(columns)
    for rank, name in enumerate(rows[0].classes, start=1):
        header += [f"class_{rank}", f"probability_{rank}"] if only_top else [f"probability_{name}"]
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(header)
    for row, *start in zip(rows, *columns.values(), strict=True):
        cells = list(start)
        for name, value in zip(row.classes, row.probabilities, strict=True):
            cells += [name, f"{value:.6g}"] if only_top else [f"{value:.6g}"]
        writer.writerow(cells)
    _files.write(path, table.getvalue().encode())
