"""The subcommand ``polyloss plot``."""

from jsonargparse import ArgumentParser

from polyloss_lightning.plotting import commands
from polyloss_lightning.plotting.curves import REFERENCE_EPSILON


def plot(arguments: list[str]) -> None:
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
