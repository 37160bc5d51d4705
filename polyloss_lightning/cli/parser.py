"""The parser of the command line, which reports a mistake in one line."""

import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser


class OneLineParser(LightningArgumentParser):
    """Reports errors in one line, instead of the long usage and list of types that jsonargparse prints.

    Attributes:
        other_subcommands: subcommands that this parser does not run, but lists if there is no such subcommand.
    """

    other_subcommands: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` in one line and exit with status 2."""
        super().error(_one_line(self._with_other_subcommands(message)), ex)

    def print_usage(self, file: Any = None) -> None:
        """Print the usage, but not as part of an error."""
        if file is not sys.stderr:
            super().print_usage(file)

    def _with_other_subcommands(self, message: str) -> str:
        def choices(match: re.Match[str]) -> str:
            known = match[2].replace("'", "")  # quoted by some versions of argparse
            return f"{match[1]}{', '.join([known, *self.other_subcommands])})"

        message = re.sub(r"(argument subcommand: invalid choice: .*\(choose from )(.*)\)", choices, message)
        missing = r'("subcommand" to be one of \{.*)(\}, but it was not provided)'
        return re.sub(missing, lambda match: ",".join([match[1], *self.other_subcommands]) + match[2], message)


def _one_line(message: str) -> str:
    noise = ("Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(noise)) or message
