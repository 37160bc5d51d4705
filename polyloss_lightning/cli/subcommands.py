"""The subcommands of ``polyloss`` other than those of LightningCLI (``fit``, ``validate``, ``test``, ``predict``)."""

from collections.abc import Callable
from typing import NamedTuple

from polyloss_lightning.cli.plot import plot
from polyloss_lightning.cli.search import report, search


class Subcommand(NamedTuple):
    """One subcommand.

    Attributes:
        run: called with the arguments that follow the name of the subcommand.
        help: what the subcommand does, in a few words, for ``polyloss --help``.
    """

    run: Callable[[list[str]], None]
    help: str


SUBCOMMANDS: dict[str, Subcommand] = {
    "plot": Subcommand(plot, "draw the losses, or the figures of a run"),
    "search": Subcommand(search, "find out whether PolyLoss helps, and with which epsilon"),
    "report": Subcommand(report, "write the web page of a search"),
}
