"""The entry point of the ``polyloss`` command."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from polyloss_lightning._shipped_configs import with_shipped_configs
from polyloss_lightning.cli.lightning_cli import PolyLossCLI
from polyloss_lightning.cli.mistakes import describe, is_mistake
from polyloss_lightning.cli.plot import plot
from polyloss_lightning.cli.search import report, search


class _Subcommand(NamedTuple):
    """A subcommand that is not one of LightningCLI.

    Attributes:
        run: called with the arguments that follow the name of the subcommand.
        purpose: what the subcommand does, in a few words, for ``polyloss --help``.
    """

    run: Callable[[list[str]], None]
    purpose: str


_SUBCOMMANDS = {
    "plot": _Subcommand(plot, "draw the losses, or the figures of a run"),
    "search": _Subcommand(search, "find out whether PolyLoss helps, and with which epsilon"),
    "report": _Subcommand(report, "write the web page of a search"),
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``polyloss`` command.

    Args:
        args: command line without the name of the program; None uses that of the process.
    """
    given = arguments = list(sys.argv[1:] if args is None else args)
    folder = os.getcwd()
    if folder not in sys.path:
        # As `python -m` does, so that a config can name the classes of a module in the working folder.
        sys.path.insert(0, folder)
    if arguments and arguments[0] in _SUBCOMMANDS:
        _SUBCOMMANDS[arguments[0]].run(arguments[1:])
        return
    try:
        arguments = with_shipped_configs(arguments)
    except ValueError as error:
        raise SystemExit(f"polyloss: {error}") from None
    # Hide deprecation warnings that Lightning itself triggers.
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
    if arguments[:1] != ["fit"]:
        # ModelCheckpoint warns that its folder is a new one whenever a checkpoint is tested.
        warnings.filterwarnings("ignore", "The dirpath has changed", UserWarning)
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    before = sys.argv
    # Passed through sys.argv, because LightningCLI warns about `args` if the process has arguments of its own.
    sys.argv = [*before[:1], *arguments]
    try:
        others = {name: subcommand.purpose for name, subcommand in _SUBCOMMANDS.items()}
        PolyLossCLI(command_line=given, other_subcommands=others)
    except Exception as error:  # outside of what PolyLossCLI reports itself, such as a seed that is out of range
        if not is_mistake(error) or "JSONARGPARSE_DEBUG" in os.environ:
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        raise SystemExit(2) from error
    finally:
        sys.argv = before
