"""The parser of the command line, which reports a mistake in one line."""

import sys
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser


class OneLineParser(LightningArgumentParser):
    """Reports errors in one line, instead of the long usage and list of types that jsonargparse prints."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` in one line and exit with status 2."""
        super().error(_one_line(message), ex)

    def print_usage(self, file: Any = None) -> None:
        """Print the usage, but not as part of an error."""
        if file is not sys.stderr:
            super().print_usage(file)


def _one_line(message: str) -> str:
    noise = ("Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(noise)) or message
