"""The ``polyloss`` command: Lightning's own command line, with shipped configs and a closing table."""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

try:
    from jsonargparse import ArgumentParser
    from jsonargparse.typing import PositiveInt
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
    from rich.console import Console

    from polyloss_lightning.results_table import only_classes, results_table
except ModuleNotFoundError as error:
    raise SystemExit(f'polyloss needs {error.name}: pip install "polyloss-lightning[cli]"') from error
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

# Imported so that their short class names resolve in a config.
from polyloss_lightning import callbacks, data, losses, models, schedules  # noqa: F401
from polyloss_lightning.plotting import commands
from polyloss_lightning.plotting.curves import REFERENCE_EPSILON
from polyloss_lightning.shipped_configs import config_names, resolve_config


class _Parser(LightningArgumentParser):
    """Says what is wrong in one line, where jsonargparse prints sixty of usage and every type that was tried."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(_one_line(message), ex)

    def print_usage(self, file: Any = None) -> None:
        if file is not sys.stderr:
            super().print_usage(file)


class PolyLossCLI(LightningCLI):
    """A LightningCLI for any module and data, as ``lightning.pytorch.cli`` documents it.

    It adds: a config is found by its shipped name or its path; wrong values for what this package builds end in one
    line instead of a traceback; each run closes with its metrics as a table and the paths of what it wrote.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._validations = _Validations()
        super().__init__(
            parser_class=_Parser,
            parser_kwargs={
                "description": "Train with PolyLoss from one YAML. Configs that are shipped, by name: "
                f"{', '.join(config_names())}. To draw what a run recorded: polyloss plot --help.",
            },
            # A run without a logger would otherwise refuse to start where an earlier one left its config.yaml.
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": self._validations},
            **kwargs,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options that neither Lightning nor the model has."""
        parser.add_argument(
            "--num_threads",
            type=PositiveInt | None,
            default=None,
            help="Threads of torch on the CPU; null leaves the default. A small network is as fast with 1, and on a "
            "busy machine many times faster.",
        )

    def before_instantiate_classes(self) -> None:
        """Set the number of threads before anything computes."""
        num_threads = self._get(self.config, "num_threads")
        if num_threads is not None:
            torch.set_num_threads(num_threads)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; a value that a constructor here refuses is an error of the command line."""
        try:
            super().instantiate_classes()
        except (TypeError, ValueError) as error:
            raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
            # jsonargparse raises an error of its own for what went wrong in an argument of an argument.
            if not raised_in.is_relative_to(Path(__file__).parent) and "jsonargparse" not in raised_in.parts:
                raise
            self._parser(self.subcommand).error(str(error))

    def before_validate(self) -> None:
        """Leave the table to :meth:`after_validate`."""
        self.config_init["validate"]["verbose"] = False

    def before_test(self) -> None:
        """Leave the table to :meth:`after_test`."""
        self.config_init["test"]["verbose"] = False

    def after_fit(self) -> None:
        """Print the validation metrics of the best checkpoint, or of the last epoch, and what was written."""
        metrics, when = self._validations.of_best(self.trainer)
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


class _Validations(Callback):
    """Remembers the metrics of the validation that the best checkpoint was saved after."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}
        self._at_best: dict[str, float] = {}
        self._best: tuple[str, float] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            # Checkpoints are saved after this hook: one that is new by now was saved after the validation before.
            self._note_best(trainer)
            metrics = trainer.callback_metrics.items()
            self._latest = {name: float(value) for name, value in metrics if name.startswith("val")}

    def of_best(self, trainer: Trainer) -> tuple[dict[str, float], str]:
        """The metrics at the best checkpoint, or the last ones where none is best, and which they are."""
        self._note_best(trainer)
        return (self._latest, "last epoch") if self._best is None else (self._at_best, "best checkpoint")

    def _note_best(self, trainer: Trainer) -> None:
        path = getattr(trainer.checkpoint_callback, "best_model_path", "")
        score = getattr(trainer.checkpoint_callback, "best_model_score", None)
        if path and score is not None and self._best != (path, float(score)):
            self._best, self._at_best = (path, float(score)), self._latest


def _print_paths(trainer: Trainer) -> None:
    written = {"checkpoint": str(getattr(trainer.checkpoint_callback, "best_model_path", ""))}
    for logger in trainer.loggers:
        written[type(logger).__name__] = str(getattr(logger, "log_dir", None) or logger.save_dir or "")
    if trainer.log_dir:
        written["figures"] = str(Path(trainer.log_dir) / "figures")
    for name, path in written.items():
        if path and Path(path).exists():
            # Plain print: rich would break a long path over two lines.
            print(f"{name}: {path}")


def _console() -> Console:
    # Outside a terminal (a log file, a pipe) rich assumes 80 columns and would cut the table of ten classes.
    console = Console()
    return console if console.is_terminal else Console(width=160)


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``polyloss`` command.

    Args:
        args: command line without the program's name; None takes that of the process.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if arguments[:1] == ["plot"]:
        _plot(arguments[1:])
        return
    try:
        arguments = _with_shipped_configs(arguments)
    except ValueError as error:
        raise SystemExit(f"polyloss: {error}") from None
    # What Lightning's own code does on newer versions of torch and jsonargparse is no news to whoever trains.
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # Handed over through sys.argv: LightningCLI warns about `args` wherever the process has arguments of its own.
    sys.argv[1:] = arguments
    PolyLossCLI()


def _one_line(message: str) -> str:
    noise = ("Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(noise)) or message


def _plot(arguments: list[str]) -> None:
    """``polyloss plot curves ...`` and ``polyloss plot run LOG_DIR``."""
    parser = ArgumentParser(prog="polyloss plot", description="Draw the losses, or what a run recorded.")
    subcommands = parser.add_subcommands()
    curves, run = ArgumentParser(description="Value, gradient, coefficients against Pt."), ArgumentParser()
    curves.add_function_arguments(commands.curves, skip={"epsilon"})
    curves.add_argument("--epsilon", nargs="+", type=float, default=list(REFERENCE_EPSILON), help="a curve for each")
    run.add_function_arguments(commands.run, as_positional=True)
    subcommands.add_subcommand("curves", curves, help="value, gradient and coefficients of Poly-1 losses")
    subcommands.add_subcommand("run", run, help="the figures of a run from what its PolynomialTermMonitor recorded")
    parsed = parser.parse_args(arguments)
    options = parsed[parsed.subcommand].as_dict()
    if parsed.subcommand == "curves":
        commands.curves(**options)
    else:
        commands.run(**options)


def _with_shipped_configs(arguments: list[str]) -> list[str]:
    resolved = []
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        if previous in ("-c", "--config"):
            resolved.append(resolve_config(argument))
        elif argument.startswith("--config="):
            resolved.append("--config=" + resolve_config(argument.removeprefix("--config=")))
        else:
            resolved.append(argument)
    return resolved
