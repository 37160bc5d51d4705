"""Which metric decides: one that does not move with epsilon."""

import re
from collections.abc import Collection

from polyloss_lightning.search.comparison import Mode

FALLBACKS = ("val/balanced_accuracy", "val/poly/base_loss")
# Whole words, so that "gloss_accuracy" is no loss and "receipt_f1" has no "ece" in it.
_WORD = r"(?<![A-Za-z])(?:{})(?![A-Za-z])"
_LARGE_IS_GOOD = re.compile(
    _WORD.format(
        r"[a-z]*acc(uracy)?|recall|precision|[a-z]*f1(score)?|[a-z]*auc|auroc|[a-z]*iou|jaccard|dice|m?ap|mAP|mcc|kappa"
        r"|r2|pt"
    )
)
_SMALL_IS_GOOD = re.compile(
    _WORD.format(r"(val|valid|train|test|log)?loss|errors?|err|nll|(cross)?entropy|r?mse|mae|perplexity|brier|ece")
)
# The loss and what is derived from it. The base loss and metrics such as cross-entropy do not contain epsilon.
_MOVES = re.compile(r"(^|[/_])loss(_epoch|_step)?$|/poly/(.*/)?(term_\d+|tail|correction|first_term_share)")


def moves_with_epsilon(metric: str) -> bool:
    """Return whether ``metric`` is, by its name, the loss or a part of it, so that settings cannot be compared by it.

    Example:
        >>> [moves_with_epsilon(name) for name in ("val/loss", "val_loss", "val/poly/base_loss", "val/pt")]
        [True, True, False, False]
    """
    return bool(_MOVES.search(metric)) and not metric.endswith("base_loss")


def check_monitor(metric: str) -> str:
    """Return ``metric``.

    Raises:
        ValueError: if it moves with epsilon.
    """
    if moves_with_epsilon(metric):
        raise ValueError(
            f"`monitor` must not move with epsilon, got {metric!r}: a loss with another epsilon is another scale, on "
            "which the smaller number is not the better model. Use an accuracy or val/poly/base_loss"
        )
    return metric


def find_monitor(metrics: Collection[str], monitor: str | None) -> str:
    """Return the metric that decides among those of a run.

    Args:
        metrics: names of the metrics of a run.
        monitor: the requested metric; None takes balanced accuracy, or else the loss without epsilon.

    Raises:
        ValueError: if there is no such metric.
    """
    for name in FALLBACKS if monitor is None else (monitor,):
        if name in metrics:
            return name
    wanted = f"{monitor!r}" if monitor is not None else " or ".join(map(repr, FALLBACKS))
    fitting = sorted(name for name in metrics if not moves_with_epsilon(name) and "class/" not in name)
    raise ValueError(f"`monitor` must be a metric of the run, and the run has no {wanted}. Set it to one of {fitting}")


def of_test_part(metric: str) -> str:
    """Return the name that a validation metric has on the test part.

    Example:
        >>> of_test_part("val/balanced_accuracy"), of_test_part("val_acc"), of_test_part("valid_acc")
        ('test/balanced_accuracy', 'test_acc', 'test_acc')
    """
    return re.sub(r"^(validation|valid|val)(?=[/_.-])", "test", metric)


def mode_of(metric: str) -> Mode:
    """Return whether a large or a small value of ``metric`` is good.

    Raises:
        ValueError: if the name does not show it, or contains a word for each of them.

    Example:
        >>> mode_of("val/balanced_accuracy"), mode_of("val/poly/base_loss")
        ('max', 'min')
    """
    small, large = _SMALL_IS_GOOD.search(metric), _LARGE_IS_GOOD.search(metric)
    if small and large:
        raise ValueError(
            f"`mode` must be given as 'max' or 'min': in the name {metric!r}, {small[0]!r} means that a small value is "
            f"good, and {large[0]!r} that a large one is"
        )
    if small or large:
        return "min" if small else "max"
    raise ValueError(f"`mode` must be given as 'max' or 'min': the name {metric!r} does not show which of them is good")


def monitor_of(
    checkpoint: tuple[str, str] | None, monitor: str | None, mode: Mode | None
) -> tuple[str | None, Mode | None]:
    """Return the metric that decides, and whether a large or a small value is good.

    Both are None if the metric is chosen among :data:`FALLBACKS` when the metrics of a run are known.

    Args:
        checkpoint: monitor and mode of the config's ModelCheckpoint, if it has one.
        monitor: the metric that the user requested.
        mode: the mode that the user requested.

    Raises:
        ValueError: if ``monitor`` moves with epsilon, its mode is unknown, or there is a mode and no monitor.
    """
    if monitor is not None:
        known = checkpoint is not None and checkpoint[0] == monitor
        return check_monitor(monitor), mode or (_as_mode(checkpoint[1]) if known and checkpoint else mode_of(monitor))
    if checkpoint is not None and not moves_with_epsilon(checkpoint[0]):
        return checkpoint[0], mode or _as_mode(checkpoint[1])
    if mode is not None:
        raise ValueError(f"`mode` needs a monitor, got mode {mode!r}: which metric decides is not known before a run")
    return None, None


def _as_mode(text: str) -> Mode:
    return "min" if text == "min" else "max"
