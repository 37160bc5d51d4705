"""The LightningCLI behind ``polyloss fit``, ``validate``, ``test`` and ``predict``."""

import traceback
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console

# Imported so that configs can use the short names of their classes.
from polyloss_lightning import callbacks, data, losses, models, schedules  # noqa: F401
from polyloss_lightning.cli.best_validation import BestValidation
from polyloss_lightning.cli.data_links import LinkedInstantiator, check_links, link_data
from polyloss_lightning.cli.parser import OneLineParser
from polyloss_lightning.cli.subcommands import SUBCOMMANDS
from polyloss_lightning.results_table import only_classes, results_table
from polyloss_lightning.shipped_configs import config_names

_PACKAGE = Path(__file__).parents[1]


class PolyLossCLI(LightningCLI):
    """A LightningCLI (see ``lightning.pytorch.cli``) for any module and data module.

    It adds three features: a config may be given by the name of a shipped config as well as by its path; wrong
    arguments of the classes of this package are reported in one line instead of a traceback; each run ends with a table
    of its metrics and the paths of the files that it wrote.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._best_validation = BestValidation()
        others = "; ".join(f"polyloss {name}: {subcommand.help}" for name, subcommand in SUBCOMMANDS.items())
        super().__init__(
            parser_class=OneLineParser,
            parser_kwargs={
                "description": "Train with PolyLoss from one YAML file. Names of the shipped configs: "
                f"{', '.join(config_names())}. Other subcommands, each with its own --help: {others}.",
            },
            # Otherwise a run without a logger does not start if an earlier run has left its config.yaml in the folder.
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": self._best_validation},
            **kwargs,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of this command."""
        parser.add_argument(
            "--num_threads",
            type=PositiveInt | None,
            default=None,
            help="Number of CPU threads of torch; null keeps the default. For a small network, 1 is as fast, and "
            "on a busy machine many times faster.",
        )
        if self.subclass_mode_model and self.subclass_mode_data:
            link_data(parser)

    def before_instantiate_classes(self) -> None:
        """Set the number of threads before the first computation."""
        num_threads = self._get(self.config, "num_threads")
        if num_threads is not None:
            torch.set_num_threads(num_threads)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer, and report arguments that our constructors reject as command-line errors."""
        try:
            super().instantiate_classes()
            check_links(self._get(self.config, "model"), self.datamodule)
        except (TypeError, ValueError) as error:
            raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
            # jsonargparse raises its own error if a nested argument is wrong.
            if not raised_in.is_relative_to(_PACKAGE) and "jsonargparse" not in raised_in.parts:
                raise
            self._parser(self.subcommand).error(str(error))

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        instantiator = LinkedInstantiator(cli=self, key="model")
        self.parser.add_instantiator(instantiator, self._model_class, subclasses=self.subclass_mode_model)

    def before_validate(self) -> None:
        """Turn off Lightning's table, because :meth:`after_validate` prints one."""
        self.config_init["validate"]["verbose"] = False

    def before_test(self) -> None:
        """Turn off Lightning's table, because :meth:`after_test` prints one."""
        self.config_init["test"]["verbose"] = False

    def after_fit(self) -> None:
        """Print the validation metrics of the best checkpoint or the last epoch, and the paths of the files written."""
        metrics, when = self._best_validation.metrics(self.trainer)
        self._close(metrics, f"validation part, {when}")
        self._close(only_classes(self.trainer.callback_metrics, "train/"), "training part, last epoch")
        if self.trainer.is_global_zero:
            _print_paths(self.trainer)

    def after_validate(self) -> None:
        """Print the metrics of the validation part."""
        self._close(self.trainer.callback_metrics, "validation part")

    def after_test(self) -> None:
        """Print the metrics of the test part."""
        self._close(self.trainer.callback_metrics, "test part")

    def _close(self, metrics: dict[str, Any], title: str) -> None:
        if self.trainer.is_global_zero and metrics:
            counts = getattr(self.datamodule, "class_counts", None)
            _console().print(results_table(metrics, title, counts))


def _print_paths(trainer: Trainer) -> None:
    written = {"checkpoint": str(getattr(trainer.checkpoint_callback, "best_model_path", ""))}
    for logger in trainer.loggers:
        written[type(logger).__name__] = str(getattr(logger, "log_dir", None) or logger.save_dir or "")
    if trainer.log_dir:
        written["figures"] = str(Path(trainer.log_dir) / "figures")
    for name, path in written.items():
        if path and Path(path).exists():
            # Plain print, because rich would break a long path into two lines.
            print(f"{name}: {path}")


def _console() -> Console:
    # If the output is not a terminal (a file, a pipe), rich assumes 80 columns, too few for a table of ten classes.
    console = Console()
    return console if console.is_terminal else Console(width=160)
