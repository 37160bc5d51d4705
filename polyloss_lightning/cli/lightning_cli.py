"""The LightningCLI behind ``polyloss fit``, ``validate``, ``test`` and ``predict``."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

# Imported so that configs can use the short names of their classes.
from polyloss_lightning import _files, callbacks, data, losses, models, schedules  # noqa: F401
from polyloss_lightning._shipped_configs import config_names
from polyloss_lightning.callbacks import PredictionWriter
from polyloss_lightning.callbacks.trainer.log_dir import log_dir
from polyloss_lightning.cli.best_validation import BestValidation
from polyloss_lightning.cli.class_results import split_classes
from polyloss_lightning.cli.data_links import check_links, link_data, linked_instantiator, take_from_checkpoint
from polyloss_lightning.cli.mistakes import check_numbers, describe, is_mistake
from polyloss_lightning.cli.next_steps import next_commands, poly_sentence
from polyloss_lightning.cli.parser import OneLineParser
from polyloss_lightning.cli.summary import (
    ClassGroups,
    print_paths,
    print_results,
    save_evaluation_figures,
)


class PolyLossCLI(LightningCLI):
    """A LightningCLI (see ``lightning.pytorch.cli``) for any module and data module.

    It adds three features: a config may be given by the name of a shipped config as well as by its path; wrong
    arguments of the classes of this package are reported in one line instead of a traceback; each run ends with a table
    of its metrics and the paths of the files that it wrote.

    Args:
        model_class: class of the module; None takes any, by ``class_path``.
        datamodule_class: class of the data module; None takes any, by ``class_path``.
        command_line: the arguments that a next command repeats; None takes those of the process.
        other_subcommands: subcommands that this class does not run, and what they do, for the help.
        **kwargs: passed on to LightningCLI.
    """

    def __init__(
        self,
        model_class: type[LightningModule] | Callable[..., LightningModule] | None = None,
        datamodule_class: type[LightningDataModule] | Callable[..., LightningDataModule] | None = None,
        *,
        command_line: Sequence[str] | None = None,
        other_subcommands: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self._command_line = list(sys.argv[1:] if command_line is None else command_line)
        self._best_validation = BestValidation()
        self._other_subcommands = other_subcommands or {}
        names = ", ".join(config_names())
        description = f"Train with PolyLoss from one YAML file. Names of the shipped configs: {names}."
        if other_subcommands:
            others = "; ".join(f"polyloss {name}: {purpose}" for name, purpose in other_subcommands.items())
            description += f" Other subcommands, each with its own --help: {others}."
        defaults = kwargs.pop("trainer_defaults", None) or {}
        persistent = defaults.get("callbacks") or []
        persistent = persistent if isinstance(persistent, list) else [persistent]
        own: dict[str, Any] = {
            "parser_class": OneLineParser,
            "parser_kwargs": {"description": description, **(kwargs.pop("parser_kwargs", None) or {})},
            # Otherwise a run without a logger does not start if an earlier run has left its config.yaml in the folder.
            "save_config_kwargs": {"overwrite": True, **(kwargs.pop("save_config_kwargs", None) or {})},
            "trainer_defaults": {**defaults, "callbacks": [self._best_validation, *persistent]},
        }
        super().__init__(model_class, datamodule_class, **{**own, **kwargs})

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Create the parser, which names the other subcommands if a subcommand is unknown."""
        parser = super().init_parser(**kwargs)
        if isinstance(parser, OneLineParser):
            parser.other_subcommands = tuple(self._other_subcommands)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of this command."""
        parser.add_argument(
            "--num_threads",
            type=PositiveInt | None,
            default=None,
            help="Number of CPU threads of torch; null keeps the default. For a small network, 1 is as fast, and "
            "on a busy machine many times faster.",
        )
        parser.add_argument(
            "--class_groups",
            type=ClassGroups,
            default="head_middle_tail",
            help="Groups of classes in the tables, by number of training samples: thirds of the classes, or over 100, "
            "20 to 100 and under 20 samples.",
        )
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        if self.subclass_mode_model and self.subclass_mode_data:
            link_data(parser)

    def before_instantiate_classes(self) -> None:
        """Set the number of threads before the first computation, and take what the checkpoint determines."""
        num_threads = self._setting("num_threads")
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        ckpt_path = self._setting("ckpt_path")
        take_from_checkpoint(
            self._setting("data"),
            ckpt_path,
            weights_only=self._setting("weights_only"),
            predicting=self.subcommand == "predict",
        )
        if self.subcommand not in (None, "fit") and not ckpt_path:
            rank_zero_warn("there is no `ckpt_path`, so the model has the weights with which it was created")

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            if not is_mistake(error):
                raise
            self._fail(error)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer, and report arguments that our constructors reject as command-line errors."""
        try:
            super().instantiate_classes()
            check_links(self._setting("model"), self.datamodule, self._setting("ckpt_path"))
            check_numbers(self.trainer)
        except Exception as error:
            if not is_mistake(error):
                raise
            self._fail(error)

    def _setting(self, key: str) -> Any:
        """Return a value of the config of the subcommand, None if it has none."""
        return self.config.get(str(self.subcommand), self.config).get(key)

    def _fail(self, error: Exception) -> NoReturn:
        """End with the error in one line."""
        parsers: Mapping[str, OneLineParser] = getattr(self, "_subcommand_parsers", {})
        parsers.get(str(self.subcommand), self.parser).error(describe(error), error)

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        instantiator, model_class = linked_instantiator(self), getattr(self, "_model_class", LightningModule)
        if instantiator is not None:
            self.parser.add_instantiator(instantiator, model_class, subclasses=self.subclass_mode_model)

    def before_validate(self) -> None:
        """Turn off Lightning's table, because :meth:`after_validate` prints one."""
        self.config_init["validate"]["verbose"] = False

    def before_test(self) -> None:
        """Turn off Lightning's table, because :meth:`after_test` prints one."""
        self.config_init["test"]["verbose"] = False

    def after_fit(self) -> None:
        """Print the metrics of the best checkpoint or the last epoch, the files written, and the next commands."""
        metrics, vectors, when = self._best_validation.results(self.trainer)
        train = {name: value for name, value in self.trainer.callback_metrics.items() if name.startswith("train/")}
        of_classes = split_classes(train)[1]
        self._close(metrics, vectors, f"validation part, {when}", "val", of_classes)
        ckpt_path = str(getattr(self.trainer.checkpoint_callback, "best_model_path", ""))
        if not self.trainer.is_global_zero:
            return
        sentence = poly_sentence(log_dir(self.trainer))
        if sentence:
            print(f"Poly-1: {sentence}")
        if ckpt_path:
            print("next:", *next_commands(self._command_line, ckpt_path), sep="\n  ")

    def after_validate(self) -> None:
        """Print the metrics of the validation part."""
        self._close(self.trainer.callback_metrics, self._vectors("val"), "validation part", "val")

    def after_test(self) -> None:
        """Print the metrics of the test part."""
        self._close(self.trainer.callback_metrics, self._vectors("test"), "test part", "test")

    def before_predict(self) -> None:
        """Keep no predictions in memory, because the writer keeps what it needs."""
        self.config_init["predict"]["return_predictions"] = False

    def after_predict(self) -> None:
        """Print the path of the predictions."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PredictionWriter) and callback.written and self.trainer.is_global_zero:
                print(f"predictions: {callback.written}")

    def _vectors(self, stage: str) -> dict[str, Tensor]:
        results: dict[str, dict[str, Tensor]] = getattr(self.model, "class_results", {})
        return results.get(stage, {})

    def _close(
        self,
        metrics: Mapping[str, Tensor | float],
        vectors: Mapping[str, Tensor],
        title: str,
        stage: str,
        others: Mapping[str, Mapping[int, float]] | None = None,
    ) -> None:
        """Print tables and paths, and write ``classes.csv`` and the figures of the evaluation."""
        if not self.trainer.is_global_zero:
            return
        named = {f"{stage}/{name}": vector for name, vector in vectors.items()}
        results = print_results(metrics, named, self.trainer, title, self._setting("class_groups"))
        written = {}
        if results.values and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            every = replace(results, values={**results.values, **(others or {})})
            written["classes"] = _files.join(log_dir(self.trainer), "classes.csv")
            every.write(written["classes"])
            save_evaluation_figures(vectors, self.trainer)
        print_paths(self.trainer, written)
