"""The commands ``polyloss plot curves`` and ``polyloss plot run``."""

from collections.abc import Sequence

from polyloss_lightning.plotting.curves import REFERENCE_EPSILON, curve_figures
from polyloss_lightning.plotting.save import save_figures, save_run_figures


def curves(gamma: float = 0.0, epsilon: Sequence[float] = REFERENCE_EPSILON, out_dir: str = "figures") -> None:
    """Draw value, gradient and coefficients of Poly-1 losses, and print the paths of the files.

    Args:
        gamma: focusing exponent, at least 0; 0 is cross-entropy.
        epsilon: draw one curve for each of these numbers.
        out_dir: folder of the figures.

    Raises:
        SystemExit: if nothing can be drawn, with the reason in one line.
    """
    try:
        paths = save_figures(curve_figures(gamma, epsilon), out_dir)
    except (ModuleNotFoundError, OSError, TypeError, ValueError) as error:
        raise SystemExit(f"polyloss plot curves: {error}") from error
    print(*paths, sep="\n")


def run(log_dir: str, out_dir: str | None = None) -> None:
    """Draw the figures of a recorded run, and print the paths of the files.

    Args:
        log_dir: folder of the run's logs, which contains ``poly_terms.jsonl``, or that file itself.
        out_dir: folder of the figures; by default ``figures`` next to the record.

    Raises:
        SystemExit: if nothing can be drawn, with the reason in one line.
    """
    try:
        paths = save_run_figures(log_dir, out_dir)
    except FileNotFoundError as error:
        raise SystemExit(f"polyloss plot run: {error} (PolynomialTermMonitor writes it during fit)") from error
    except (ModuleNotFoundError, OSError, ValueError) as error:
        raise SystemExit(f"polyloss plot run: {error}") from error
    if not paths:
        raise SystemExit(f"polyloss plot run: the record in {log_dir} contains no epoch yet")
    print(*paths, sep="\n")
