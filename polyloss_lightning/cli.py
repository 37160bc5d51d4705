"""The ``polyloss`` command: a LightningCLI with shipped configs and a table of results at the end of a run."""

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

# Imported so that configs can use the short names of their classes.
from polyloss_lightning import callbacks, data, losses, models, schedules  # noqa: F401
from polyloss_lightning.plotting import commands
from polyloss_lightning.plotting.curves import REFERENCE_EPSILON
from polyloss_lightning.shipped_configs import config_names, resolve_config


class _Parser(LightningArgumentParser):
    """Reports errors in one line, instead of the long usage and list of types that jsonargparse prints."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(_one_line(message), ex)

    def print_usage(self, file: Any = None) -> None:
        if file is not sys.stderr:
            super().print_usage(file)


class PolyLossCLI(LightningCLI):
    """A LightningCLI (see ``lightning.pytorch.cli``) for any module and data module.

    It adds three features: a config may be given by the name of a shipped config as well as by its path; wrong
    arguments of the classes of this package are reported in one line instead of a traceback; each run ends with a table
    of its metrics and the paths of the files that it wrote.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._validations = _Validations()
        super().__init__(
            parser_class=_Parser,
            parser_kwargs={
                "description": "Train with PolyLoss from one YAML file. Names of the shipped configs: "
                f"{', '.join(config_names())}. To draw the figures of a run: polyloss plot --help.",
            },
            # Otherwise a run without a logger does not start if an earlier run has left its config.yaml in the folder.
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": self._validations},
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

    def before_instantiate_classes(self) -> None:
        """Set the number of threads before the first computation."""
        num_threads = self._get(self.config, "num_threads")
        if num_threads is not None:
            torch.set_num_threads(num_threads)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer, and report arguments that our constructors reject as command-line errors."""
        try:
            super().instantiate_classes()
        except (TypeError, ValueError) as error:
            raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
            # jsonargparse raises its own error if a nested argument is wrong.
            if not raised_in.is_relative_to(Path(__file__).parent) and "jsonargparse" not in raised_in.parts:
                raise
            self._parser(self.subcommand).error(str(error))

    def before_validate(self) -> None:
        """Turn off Lightning's table, because :meth:`after_validate` prints one."""
        self.config_init["validate"]["verbose"] = False

    def before_test(self) -> None:
        """Turn off Lightning's table, because :meth:`after_test` prints one."""
        self.config_init["test"]["verbose"] = False

    def after_fit(self) -> None:
        """Print the validation metrics of the best checkpoint or the last epoch, and the paths of the files written."""
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
    """Stores the metrics of the validation after which the best checkpoint was saved."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}
        self._at_best: dict[str, float] = {}
        self._best: tuple[str, float] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            # Checkpoints are saved after this hook, so one that is new now was saved after the previous validation.
            self._note_best(trainer)
            metrics = trainer.callback_metrics.items()
            self._latest = {name: float(value) for name, value in metrics if name.startswith("val")}

    def of_best(self, trainer: Trainer) -> tuple[dict[str, float], str]:
        """Return the metrics of the best checkpoint, or the last ones if there is none, and which of these they are."""
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
            # Plain print, because rich would break a long path into two lines.
            print(f"{name}: {path}")


def _console() -> Console:
    # If the output is not a terminal (a file, a pipe), rich assumes 80 columns, too few for a table of ten classes.
    console = Console()
    return console if console.is_terminal else Console(width=160)


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``polyloss`` command.

    Args:
        args: command line without the name of the program; None uses that of the process.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if arguments[:1] == ["plot"]:
        _plot(arguments[1:])
        return
    try:
        arguments = _with_shipped_configs(arguments)
    except ValueError as error:
        raise SystemExit(f"polyloss: {error}") from None
    # Hide deprecation warnings that Lightning itself triggers.
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # Passed through sys.argv, because LightningCLI warns about `args` if the process has arguments of its own.
    sys.argv[1:] = arguments
    PolyLossCLI()


def _one_line(message: str) -> str:
    noise = ("Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(noise)) or message


def _plot(arguments: list[str]) -> None:
    """Run ``polyloss plot curves ...`` or ``polyloss plot run LOG_DIR``."""
    parser = ArgumentParser(prog="polyloss plot", description="Draw the losses, or the figures of a run.")
    subcommands = parser.add_subcommands()
    curves, run = (
        ArgumentParser(description="Draw value and gradient of Poly-1 losses against Pt, and their coefficients."),
        ArgumentParser(),
    )
    curves.add_function_arguments(commands.curves, skip={"epsilon"})
    curves.add_argument(
        "--epsilon", nargs="+", type=float, default=list(REFERENCE_EPSILON), help="one curve for each value"
    )
    run.add_function_arguments(commands.run, as_positional=True)
    subcommands.add_subcommand("curves", curves, help="value, gradient and coefficients of Poly-1 losses")
    subcommands.add_subcommand("run", run, help="the figures of a run, from the record of its PolynomialTermMonitor")
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
