"""The callback that logs each polynomial term of the losses of a module."""

from collections.abc import Sequence
from typing import Any, get_args

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from polyloss_lightning.callbacks.base_callback import Callback
from polyloss_lightning.callbacks.class_values import (
    Vectors,
    check_classes,
    class_record,
    class_values,
    counts_seen,
    find_num_classes,
    given_counts,
)
from polyloss_lightning.callbacks.observables import check_unshared, find_callbacks, find_observables
from polyloss_lightning.callbacks.observation_collector import ObservationCollector
from polyloss_lightning.callbacks.run_files import RunFiles
from polyloss_lightning.callbacks.term_names import Stage, check_choices, epsilon_values, prefix, scalar_names
from polyloss_lightning.callbacks.term_sums import Seen, TermSums
from polyloss_lightning.core import Observable, polynomial
from polyloss_lightning.metrics import check_count
from polyloss_lightning.record import EpochRecord


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
    ``first_term_gradient_class/{k}``. It logs the same with ``_head``, ``_middle`` and ``_tail`` instead of
    ``_class/{k}``, for the thirds of the classes by training count, from the most frequent to the rarest. The counts
    are the ``class_counts`` of the datamodule, or are derived from the first training epoch if possible.

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
            :mod:`polyloss_lightning.record`). Without a logger nothing is written.
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
        self._several = False  # whether there are several losses, so that names need the path
        self._collector = ObservationCollector()
        self._sums = TermSums(num_terms)
        self._forms: dict[str, tuple[float, int | None]] = {}  # latest gamma and num_terms of each loss
        self._class_counts: list[float] | None = None
        self._epoch = 0
        self._files = RunFiles()

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(losses=self.losses and tuple(sorted(self.losses)))

    def _start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: Stage) -> None:
        """Begin the sums of a pass, and find the losses again, because one may have been replaced."""
        if trainer.barebones:  # such a Trainer logs nothing
            return
        self._observables = find_observables(trainer, pl_module, self.losses)
        others = [other for other in find_callbacks(trainer, PolynomialTermMonitor) if other is not self]
        check_unshared(self._observables, trainer, pl_module, [other.losses for other in others])
        self._several = bool(others) or len(self._observables) > 1
        self._collector.attach(self._observables)
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
        # on_train_epoch_start is not called if a run resumes in the middle of an epoch or after its last batch.
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
        self._collector.detach()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self._collector.detach()

    on_test_end = on_train_end

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        monitors = find_callbacks(trainer, PolynomialTermMonitor)
        if self in [m for m in monitors if m.figures and m.record][:1]:  # they share one record, so only one draws it
            self._files.draw(trainer)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._collector.detach()
        self._observables = {}
        self._files.close()

    def _begin_step(self, trainer: pl.Trainer, stage: Stage) -> None:
        if stage in self.stages and not trainer.sanity_checking:
            self._collector.begin()

    def _end_step(self, stage: Stage) -> Seen:
        seen = self._collector.end()
        self._sums.update(stage, seen)
        self._forms.update((path, (observation.gamma, observation.num_terms)) for path, observation in seen)
        return seen

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._begin_step(trainer, "train")

    @override
    def on_before_backward(self, *args: Any, **kwargs: Any) -> None:
        self._collector.before_backward()

    @override
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # In manual optimization a step may have several backward passes, each for different losses.
        self._collector.after_backward(rerun=pl_module.automatic_optimization)

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
        """Log the values of the pass that ends. They are the same on every process."""
        if stage not in self.stages or trainer.barebones:
            return
        self._collector.end()  # on_train_batch_end is not called for a skipped step
        epochs = []
        for path, loss in self._observables.items():
            values = self._sums.compute(stage, path)
            scalars = {name: float(values[name]) for name in self._names}
            vectors: Vectors = {name: value.tolist() for name, value in values.items() if name not in scalars}
            if not any(vectors["pt_histogram"]):  # the loss was not called, or no target counted
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
        self._files.write(trainer, epochs, self._class_counts)

    @override
    def state_dict(self) -> dict[str, Any]:
        # A callback that saves in on_train_batch_end may run before this one has added the step.
        sums = self._sums.state_dict(self._collector.seen, sync=False)
        state = {"train_sums": sums, "epoch": self._epoch, "forms": self._forms, "class_counts": self._class_counts}
        return {"version": 1, **state}

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.world_size > 1 and not trainer.interrupted:  # if interrupted, other processes may never get here
            sums = self._sums.state_dict(self._collector.seen, sync=True)
            checkpoint["callbacks"][self.state_key]["train_sums"] = sums

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums.load_state_dict(state_dict["train_sums"])
        self._epoch = state_dict["epoch"]
        self._forms = dict(state_dict["forms"])
        self._class_counts = state_dict["class_counts"]
