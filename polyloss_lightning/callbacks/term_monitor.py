"""Each polynomial term as a metric, while the module trains."""

from collections.abc import Sequence
from typing import Any, get_args

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from polyloss_lightning.callbacks.class_values import (
    Vectors,
    check_classes,
    class_record,
    class_values,
    counts_seen,
    find_num_classes,
    given_counts,
)
from polyloss_lightning.callbacks.namespaces import Callback
from polyloss_lightning.callbacks.observables import check_unshared, find_callbacks, find_observables
from polyloss_lightning.callbacks.run_files import RunFiles
from polyloss_lightning.callbacks.step_observer import StepObserver
from polyloss_lightning.callbacks.term_names import Stage, check_choices, epsilon_values, prefix, scalar_names
from polyloss_lightning.callbacks.term_sums import Seen, TermSums
from polyloss_lightning.core import Observable, polynomial
from polyloss_lightning.metrics import check_count
from polyloss_lightning.record import EpochRecord


class PolynomialTermMonitor(Callback):
    r"""Logs what each term of a PolyLoss contributes, in training, validation and test.

    It listens to every :class:`~polyloss_lightning.losses.PolyLoss` in the module, and to the losses that a callback
    puts in the place of others. The module needs no change.

    =====================================  ==========================================================================
    name                                   value
    =====================================  ==========================================================================
    ``{stage}/poly/term_1`` .. ``term_N``  :math:`(1/j+\epsilon_j)(1-P_t)^{j+\gamma}`, as it enters the loss
    ``{stage}/poly/tail``                  all later terms: terms and tail sum to the loss
    ``{stage}/poly/loss``                  the loss
    ``{stage}/poly/base_loss``             the loss without epsilon: it stands still while epsilon moves, so it is
                                           the one to monitor
    ``{stage}/poly/correction``            loss minus base loss
    ``{stage}/poly/first_term_share``      the first term's share of the gradient in Pt, a mean over entries
    ``{stage}/poly/pt``                    mean Pt
    ``poly/epsilon``                       epsilon at the end of a training epoch
    =====================================  ==========================================================================

    A module with several losses has ``{stage}/poly/{path}/...`` and ``poly/{path}/epsilon`` instead. Training logs
    the same names with ``_step`` for single batches, every ``log_every_n_steps``. All is weighted as the loss is,
    ignored targets count for nothing, and a value of an epoch is the one that a single batch of the whole epoch would
    have, over all processes and dataloaders; see :class:`~polyloss_lightning.metrics.PolynomialTerms`. With several
    processes each logged step is a collective.

    With ``per_class=True``: ``{stage}/poly/pt_class/{k}``, ``first_term_share_class/{k}`` and
    ``first_term_gradient_class/{k}``, and the same with ``_head``, ``_middle`` and ``_tail`` in the place of
    ``_class/{k}`` for the thirds of the classes by training count. The counts are the datamodule's ``class_counts``,
    or what the first training epoch saw, where that tells them.

    The sums of a training epoch are part of the checkpoint, so an epoch that is resumed in the middle is whole. (One
    saved because of an exception holds those of the saving process alone: the others may never come to add theirs.)
    Several monitors in one Trainer need ``losses``, each its own; all then log with the path, and write one record.

    Args:
        num_terms: number of terms to tell apart; the rest is the tail.
        stages: stages to monitor.
        losses: paths of the losses to monitor; None takes all, and is for a single monitor.
        per_class: log per class too.
        num_classes: number of classes; None asks the datamodule (``class_counts``, ``num_classes``) and the module
            (``num_classes``).
        prog_bar: names to show on the progress bar, such as ``("first_term_share", "pt")``.
        record: write every epoch to ``poly_terms.jsonl`` in the folder of the logs (see
            :mod:`polyloss_lightning.record`). Without a logger nothing is written.
        figures: at the end of ``fit`` draw what was recorded as PNG files beside it, and send the figures to the
            loggers that take images. Needs matplotlib.

    Raises:
        TypeError: if ``stages``, ``losses`` or ``prog_bar`` is not a sequence of strings.
        ValueError: if an option is out of its range; when a stage starts, if there is no loss to observe, or one that
            another monitor observes too.

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
        check_count("num_terms", num_terms)
        if num_classes is not None:
            check_count("num_classes", num_classes, at_least=2)
        self._names = scalar_names(num_terms)
        self.num_terms = num_terms
        self.stages = check_choices("stages", stages, get_args(Stage))
        self.losses = None if losses is None else check_choices("losses", losses)
        self.per_class = per_class
        self.num_classes = num_classes
        self.prog_bar = check_choices("prog_bar", prog_bar, self._names)
        self.record = record
        self.figures = figures

        self._observables: dict[str, Observable] = {}
        self._several = False  # losses, so that names need their paths
        self._observer = StepObserver()
        self._sums = TermSums(num_terms)
        self._forms: dict[str, tuple[float, int | None]] = {}  # gamma and num_terms of each loss, as last seen
        self._class_counts: list[float] | None = None
        self._epoch = 0
        self._files = RunFiles()

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(losses=self.losses and tuple(sorted(self.losses)))

    def _start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: Stage) -> None:
        """Begin the sums of a pass, and observe the losses that are there now: one may have been replaced."""
        if trainer.barebones:  # it logs nothing
            return
        self._observables = find_observables(trainer, pl_module, self.losses)
        others = [other for other in find_callbacks(trainer, PolynomialTermMonitor) if other is not self]
        check_unshared(self._observables, trainer, pl_module, [other.losses for other in others])
        self._several = bool(others) or len(self._observables) > 1
        self._observer.listen(self._observables)
        if self.record:
            self._files.open(trainer, [other._files for other in others])
        if stage not in self.stages:
            return
        self._class_counts = given_counts(trainer) or self._class_counts
        num_classes = None
        if self.per_class:
            num_classes = self.num_classes or len(self._class_counts or ()) or find_num_classes(trainer, pl_module)
        self._sums.begin(stage, self._observables, num_classes, pl_module.device)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer, pl_module, "train")
        # No epoch starts where a run is resumed in the middle of one, nor after its last batch.
        self._sums.restore(here=trainer.is_global_zero and trainer.current_epoch == self._epoch)
        self._epoch = trainer.current_epoch

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer, pl_module, "train")
        self._epoch = trainer.current_epoch

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._start(trainer, pl_module, "test" if trainer.testing else "val")

    on_test_start = on_validation_start

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._observer.close()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self._observer.close()

    on_test_end = on_train_end

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        monitors = find_callbacks(trainer, PolynomialTermMonitor)
        if self in [m for m in monitors if m.figures and m.record][:1]:  # all have one record, and so the same figures
            self._files.draw(trainer)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._observer.close()
        self._observables = {}
        self._files.close()

    def _begin_step(self, trainer: pl.Trainer, stage: Stage) -> None:
        if stage in self.stages and not trainer.sanity_checking:
            self._observer.begin()

    def _end_step(self, stage: Stage) -> Seen:
        seen = self._observer.end()
        self._sums.update(stage, seen)
        self._forms.update((path, (observation.gamma, observation.num_terms)) for path, observation in seen)
        return seen

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._begin_step(trainer, "train")

    @override
    def on_before_backward(self, *args: Any, **kwargs: Any) -> None:
        self._observer.before_backward()

    @override
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # In manual optimization a step may have several backward passes, each with losses of its own.
        self._observer.after_backward(rerun=pl_module.automatic_optimization)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        seen = self._end_step("train")
        if "train" not in self.stages or trainer.barebones or not trainer._logger_connector.should_update_logs:
            return
        for path in self._observables:
            values = self._sums.compute_step(path, seen)
            for name in values.keys() & self._names:
                key = f"{prefix('train', path, self._several)}{name}_step"
                pl_module.log(key, values[name], name in self.prog_bar, on_step=True, on_epoch=False)

    @override
    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._begin_step(trainer, "test" if trainer.testing else "val")

    @override
    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._end_step("test" if trainer.testing else "val")

    on_test_batch_start, on_test_batch_end = on_validation_batch_start, on_validation_batch_end

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log_epoch(trainer, pl_module, "train")

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._log_epoch(trainer, pl_module, "test" if trainer.testing else "val")

    on_test_epoch_end = on_validation_epoch_end

    def _log_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: Stage) -> None:
        """Log the pass that ends. Every process comes here, and all have the same values."""
        if stage not in self.stages or trainer.barebones:
            return
        self._observer.end()  # a step that was skipped never ended
        epochs = []
        for path, loss in self._observables.items():
            values = self._sums.compute(stage, path)
            scalars = {name: float(values[name]) for name in self._names}
            vectors: Vectors = {name: value.tolist() for name, value in values.items() if name not in scalars}
            if not any(vectors["pt_histogram"]):  # the loss was not called, or without a target that counts
                continue
            logged = dict(scalars)
            if self.per_class:
                check_classes(vectors)
                if stage == "train" and self._class_counts is None:
                    self._class_counts = counts_seen(vectors, loss)
                logged |= class_values(vectors, self._class_counts)
            epsilon = polynomial.as_epsilon(loss.epsilon)
            start = prefix(stage, path, self._several)
            for name, value in logged.items():
                pl_module.log(start + name, value, name in self.prog_bar, on_epoch=True, sync_dist=True, batch_size=1)
            for key, value in epsilon_values(path, self._several, epsilon).items() if stage == "train" else ():
                pl_module.log(key, value, on_epoch=True, sync_dist=True, batch_size=1)
            where = (stage, path, trainer.current_epoch, trainer.global_step)
            form = self._forms.get(path, (0.0, None))
            classes = class_record(vectors) if self.per_class else None
            epochs.append(EpochRecord(*where, epsilon, *form, scalars, vectors["pt_histogram"], classes))
        self._files.write(epochs, self._class_counts)

    @override
    def state_dict(self) -> dict[str, Any]:
        # A callback that saves in on_train_batch_end may come before this one, which has not counted yet.
        sums = self._sums.state_dict(self._observer.seen, sync=False)
        state = {"train_sums": sums, "epoch": self._epoch, "forms": self._forms, "class_counts": self._class_counts}
        return {"version": 1, **state}

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.world_size > 1 and not trainer.interrupted:  # else the other processes may never come here
            sums = self._sums.state_dict(self._observer.seen, sync=True)
            checkpoint["callbacks"][self.state_key]["train_sums"] = sums

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums.load_state_dict(state_dict["train_sums"])
        self._epoch = state_dict["epoch"]
        self._forms = dict(state_dict["forms"])
        self._class_counts = state_dict["class_counts"]
