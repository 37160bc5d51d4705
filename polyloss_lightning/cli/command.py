"""The entry point of the ``polyloss`` command."""

import os
import sys
import warnings
from collections.abc import Sequence

from polyloss_lightning._shipped_configs import resolve_config
from polyloss_lightning.cli.lightning_cli import PolyLossCLI
from polyloss_lightning.cli.mistakes import describe, is_mistake
from polyloss_lightning.cli.subcommands import SUBCOMMANDS


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
    if arguments and arguments[0] in SUBCOMMANDS:
        SUBCOMMANDS[arguments[0]].run(arguments[1:])
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
        PolyLossCLI(given)
    except Exception as error:  # outside of what PolyLossCLI reports itself, such as a seed that is out of range
        if not is_mistake(error) or "JSONARGPARSE_DEBUG" in os.environ:
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        raise SystemExit(2) from error
    finally:
        sys.argv = before


def with_shipped_configs(arguments: list[str]) -> list[str]:
    """Replace the name of a shipped config after ``--config`` by its path."""
    resolved = []
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        if previous in ("-c", "--config"):
            resolved.append(resolve_config(argument))
        elif argument.startswith("--config="):
            resolved.append("--config=" + resolve_config(argument.removeprefix("--config=")))
        else:
            resolved.append(argument)
    return resolved
