"""Finding the line of code that called a loss, for error messages and for the table of replaced losses."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

_MACHINERY = ("torch.", "contextlib.", f"{__package__}.")
_FOOTER = "Values computed from a replaced loss, such as a perplexity, come from the Poly loss, not from torch's."


@dataclass
class CallSite:
    """One line of user code that calls one of torch's loss functions.

    Attributes:
        function: name of the function.
        reduction: reduction of the call.
        location: file and line.
        replaced: whether the loss was replaced.
        reason: why it was not replaced; empty if it was.
        shape: shape of the logits in the latest call.
        calls: number of calls.
    """

    function: str
    reduction: str
    location: str
    replaced: bool
    reason: str = ""
    shape: tuple[int, ...] = ()
    calls: int = 0


def caller() -> FrameType:
    """Return the innermost frame outside of torch and of this package: the frame that called torch."""
    for frame in stack(sys._getframe(1)):
        if not f"{frame.f_globals.get('__name__')}.".startswith(_MACHINERY):
            break
    return frame


def in_sigmoid_focal_loss(frame: FrameType) -> bool:
    """Return whether ``frame`` is a frame of torchvision's ``sigmoid_focal_loss``."""
    # After a graph break, torch.compile continues in a function whose name contains the name of the original one.
    in_module = frame.f_globals.get("__name__") == "torchvision.ops.focal_loss"
    return in_module and "sigmoid_focal_loss" in frame.f_code.co_name


def stack(frame: FrameType) -> Iterator[FrameType]:
    """Yield ``frame`` and its callers, innermost first."""
    current: FrameType | None = frame
    while current is not None:
        yield current
        current = current.f_back


def location(frame: FrameType) -> str:
    """Return file and line of ``frame``, or of its nearest caller outside of torchvision's focal loss."""
    while in_sigmoid_focal_loss(frame) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def table(sites: Sequence[CallSite]) -> str:
    """Return the call sites as an aligned text table.

    Example:
        >>> print(table([CallSite("cross_entropy", "mean", "/app/model.py:31", True, shape=(8, 10), calls=1)]))
        function       reduction  shape    called from       replaced
        cross_entropy  mean       (8, 10)  /app/model.py:31  yes
        Values computed from a replaced loss, such as a perplexity, come from the Poly loss, not from torch's.
    """
    rows = [("function", "reduction", "shape", "called from", "replaced")]
    for site in sites:
        replaced = "yes" if site.replaced else f"no: {site.reason}"
        rows.append((site.function, site.reduction, str(site.shape), _short(site.location), replaced))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, _FOOTER] if any(site.replaced for site in sites) else lines)


def _short(location: str) -> str:
    """Return ``location`` relative to the working directory or to an entry of ``sys.path``, if it is inside of one."""
    folders = [os.path.join(folder, "") for folder in [*sys.path, os.getcwd()] if folder]
    return location.removeprefix(next(filter(location.startswith, folders), ""))
