"""The callback that logs each polynomial term of the losses of a module."""

from collections.abc import Sequence
from typing import Any, get_args

import lightning.pytorch as pl
from torch import Tensor
from typing_extensions import override

from polyloss_lightning._checks import check_choices
from polyloss_lightning.callbacks.base import Callback
from polyloss_lightning.callbacks.monitor.class_values import find_num_classes, given_counts
from polyloss_lightning.callbacks.monitor.observation_collector import ObservationCollector
from polyloss_lightning.callbacks.monitor.run_files import RunFiles
from polyloss_lightning.callbacks.monitor.sums import PassSums
from polyloss_lightning.callbacks.monitor.term_log import TermLog
from polyloss_lightning.callbacks.trainer.find_losses import (
    Observable,
    choose_for,
    find_callbacks,
    find_losses,
    observables,
)
from polyloss_lightning.callbacks.trainer.log_names import Stage
from polyloss_lightning.callbacks.trainer.progress import current_stage, in_trained_step, logs_are_due, max_epochs
from polyloss_lightning.metrics import check_sizes, term_names


class PolynomialTermMonitor(Callback):
    r"""Logs what each term of a PolyLoss contributes, in training, validation and test.

    It observes every :class:`~polyloss_lightning.losses.PolyLoss` in the module, and the losses replaced by a
    :class:`~polyloss_lightning.callbacks.PolyLossOverride`. The module does not have to be changed.

    =====================================  ==========================================================================
    name                                   value
    =====================================  ==========================================================================
    ``{stage}/poly/term_1`` .. ``term_N``  :math:`(1/j+\epsilon_j)(1-P_t)^{j+\gamma}`, as it enters the loss
    ``{stage}/poly/tail``                  sum of all later terms, so that terms and tail add up to the loss
    ``{stage}/poly/loss``                  the loss
    ``{stage}/poly/base_loss``             the loss without epsilon. Use this one to compare epochs, because a
                                           changing epsilon does not affect it.
    ``{stage}/poly/correction``            loss minus base loss
    ``{stage}/poly/first_term_share``      the first term's share of the gradient in Pt, averaged over entries
    ``{stage}/poly/pt``                    mean Pt
    ``poly/epsilon``                       epsilon at the end of a training epoch
    =====================================  ==========================================================================

    If the module has several losses, the names are ``{stage}/poly/{path}/...`` and ``poly/{path}/epsilon`` instead. In
    training the values of single batches are logged as well, every ``log_every_n_steps``, under the same names
    followed by ``_step``. All values use the weights of the loss, and ignored targets do not count. The value of an
    epoch is exact: it equals that of one batch with all samples of the epoch, over all processes and dataloaders (see
    :class:`~polyloss_lightning.metrics.PolynomialTerms`). With several processes each logged step is a collective.

    With ``per_class=True`` the monitor also logs ``{stage}/poly/pt_class/{k}``, ``first_term_share_class/{k}`` and
    ``first_term_gradient_class/{k}``, if there are at most 100 classes; the record and the figures have the values of
    any number of classes. It logs the same with ``_head``, ``_middle`` and ``_tail`` instead of ``_class/{k}``, for the
    thirds of the classes by training count, from the most frequent to the rarest. The counts are the ``class_counts``
    of the datamodule (one per class, or a mapping from class index to count), or are derived from the first training
    epoch if possible.

    The sums of a training epoch are saved in the checkpoint, so an epoch resumed in the middle is complete. (A
    checkpoint saved on an exception contains only the sums of the process that saves it.) If a Trainer has several
    monitors, each needs its own ``losses``. They then log all names with the path, and write one common record.

    Args:
        num_terms: number of terms to log separately; all later terms form the tail.
        stages: stages to monitor.
        losses: paths of the losses to monitor; None monitors all, and is allowed only if there is a single monitor.
        per_class: also log values per class.
        num_classes: number of classes; None takes it from the datamodule (``class_counts`` or ``num_classes``) or the
            module (``num_classes``).
        prog_bar: names to show on the progress bar, such as ``("first_term_share", "pt")``.
        record: write every epoch to ``poly_terms.jsonl`` in the folder of the logs (see
            :mod:`polyloss_lightning.record`), or in ``default_root_dir`` if there is none; a new run replaces it there.
        figures: at the end of ``fit`` draw the record as PNG files next to it, and send the figures to the loggers that
            accept images. Needs matplotlib.

    Raises:
        TypeError: if ``stages``, ``losses`` or ``prog_bar`` is not a sequence of strings.
        ValueError: if an argument is out of range; when a stage starts, if there is no loss to observe, or if another
            monitor observes the same loss.

    Example:
        >>> monitor = PolynomialTermMonitor(num_terms=2, prog_bar=["first_term_share"])
        >>> trainer = pl.Trainer(callbacks=[monitor], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        num_terms: int = 3,
        *,
        stages: Sequence[Stage] = ("train", "val", "test"),
        losses: Sequence[str] | None = None,
        per_class: bool = False,
        num_classes: int | None = None,
        prog_bar: Sequence[str] = (),
        record: bool = True,
        figures: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(num_terms, num_classes)
        self.num_terms = num_terms
        self.stages = check_choices("stages", stages, get_args(Stage))
        self.losses = None if losses is None else check_choices("losses", losses)
        self.per_class = per_class
        self.num_classes = num_classes
        self.prog_bar = check_choices("prog_bar", prog_bar, term_names(num_terms))
        self.record = record
        self.figures = figures

        self._observables: dict[str, Observable] = {}
        self._collector = ObservationCollector()
        self._sums = PassSums(num_terms)
        self._step: dict[str, Tensor] = {}  # sums of the current step
        self._epoch_begins = False
        self._restored: tuple[int, dict[str, Tensor]] = (0, {})  # epoch and sums of a checkpoint
        self._log = TermLog(num_terms, self.prog_bar)
        self._files = RunFiles()

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(losses=self.losses and tuple(sorted(self.losses)))

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # on_train_epoch_start is not called if a run resumes in the middle of an epoch or after its last batch.
        self._begin_pass(trainer, pl_module)
        self._epoch_begins = False  # it is left over from a run that was interrupted before the first batch of an epoch
        epoch, sums = self._restored
        if trainer.is_global_zero and trainer.current_epoch == epoch:  # on one process, to count them once
            self._sums.restore(sums)
        self._restored = (0, {})

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_begins = True

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if self._epoch_begins:  # not in on_train_epoch_start: the module's hook is called later, and may replace a loss
            self._begin_pass(trainer, pl_module)
            self._epoch_begins = False
        if trainer.current_epoch < max_epochs(trainer):
            self._begin_step(trainer)

    @override
    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._collector.before_backward()

    @override
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # In manual optimization a step may have several backward passes, each for different losses.
        self._collector.after_backward(rerun=pl_module.automatic_optimization)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        self._end_step(trainer)
        if "train" in self.stages and not trainer.barebones and logs_are_due(trainer):
            self._log.step(pl_module, self._sums.of_step(trainer, self._step))

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_pass(trainer)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin_pass(trainer, pl_module)

    @override
    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._begin_step(trainer)

    @override
    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._end_step(trainer)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_pass(trainer)

    @override
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin_pass(trainer, pl_module)

    @override
    def on_test_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._begin_step(trainer)

    @override
    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._end_step(trainer)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_pass(trainer)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        monitors = find_callbacks(trainer, PolynomialTermMonitor)
        if self in [m for m in monitors if m.figures and m.record][:1]:  # they share one record, so only one draws it
            self._files.draw(trainer)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if in_trained_step(trainer):
            self._end_step(trainer)
        self.teardown(trainer, pl_module, "")

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._collector.attach({})
        self._observables = {}
        self._files.close()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"version": 1, "forms": self._log.forms, "class_counts": self._log.class_counts}

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if in_trained_step(trainer):  # a callback may save in on_train_batch_end before this one has added the step
            self._end_step(trainer)
        state = checkpoint["callbacks"][self.state_key]
        state |= {"epoch": trainer.current_epoch, "train_sums": self._sums.state(trainer)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._can_restore(state_dict, version=1):
            self._restored = state_dict["epoch"], dict(state_dict["train_sums"])
            self._log.forms = dict(state_dict["forms"])
            self._log.class_counts = state_dict["class_counts"]

    def _begin_pass(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stage = current_stage(trainer)
        if stage is None or trainer.barebones:  # a barebones Trainer logs nothing
            return
        # Find the losses in every pass, because one may have been replaced.
        monitors = find_callbacks(trainer, PolynomialTermMonitor)
        every = observables(find_losses(trainer, pl_module))
        self._observables = choose_for(self, PolynomialTermMonitor, trainer, every, "losses")
        self._log.several = len(monitors) > 1 or len(self._observables) > 1
        self._collector.attach(self._observables)
        if self.record:
            self._files = next(monitor._files for monitor in monitors if monitor.record)  # they write a common record
            self._files.open(trainer)
        if stage not in self.stages:
            return
        self._log.class_counts = given_counts(trainer) or self._log.class_counts
        if self.per_class:
            counts = self._log.class_counts or ()
            if self.num_classes and len(counts) > self.num_classes:
                raise ValueError(f"`num_classes` is {self.num_classes}, but there are {len(counts)} `class_counts`")
            self._sums.num_classes = self.num_classes or len(counts) or find_num_classes(trainer, pl_module)
        self._sums.begin(stage, self._observables, pl_module.device)

    def _begin_step(self, trainer: pl.Trainer) -> None:
        if current_stage(trainer) in self.stages:
            self._collector.begin()
            self._step = {}

    def _end_step(self, trainer: pl.Trainer) -> None:
        seen = self._collector.end()
        self._log.forms.update((path, (observation.gamma, observation.num_terms)) for path, observation in seen)
        stage = current_stage(trainer)
        if seen and stage is not None:
            self._step = self._sums.add(stage, seen)

    def _end_pass(self, trainer: pl.Trainer) -> None:
        stage = current_stage(trainer)
        if stage is None or stage not in self.stages or trainer.barebones:
            return
        self._collector.end()  # on_train_batch_end is not called for a skipped step
        sums = self._sums.end(trainer, stage)
        losses = {path: loss for path, loss in self._observables.items() if path in sums}
        epochs = self._log.epoch(trainer, stage, sums, losses, self._sums.num_classes)
        self._files.write(trainer, epochs, self._log.class_counts)
