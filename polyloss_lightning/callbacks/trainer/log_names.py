"""The names under which the callbacks log."""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

Stage: TypeAlias = Literal["train", "val", "test"]


def prefix(stage: Stage | Literal[""], path: str, several: bool) -> str:
    """Return ``{stage}/poly/``, followed by the path of the loss if there are several; without a stage ``poly/``.

    Example:
        >>> prefix("train", "loss_fn", several=False), prefix("val", "heads.0.loss", several=True)
        ('train/poly/', 'val/poly/heads.0.loss/')
    """
    loss = path_in_names(path) + "/" if several else ""
    return f"{stage}/poly/{loss}".lstrip("/")


def path_in_names(path: str) -> str:
    """Return the path of a loss as it is written in names, without the characters that some loggers refuse.

    Example:
        >>> path_in_names("heads.a b")
        'heads.a_b'
    """
    return re.sub(r"[^A-Za-z0-9_./-]", "_", path)


def epsilon_values(path: str, several: bool, epsilon: Sequence[float]) -> dict[str, float]:
    """Return each epsilon by the name under which it is logged.

    Example:
        >>> epsilon_values("loss_fn", False, [1.0]), epsilon_values("loss_fn", True, [1.0, 0.5])
        ({'poly/epsilon': 1.0}, {'poly/loss_fn/epsilon_1': 1.0, 'poly/loss_fn/epsilon_2': 0.5})
    """
    start = prefix("", path, several) + "epsilon"
    return {start if len(epsilon) == 1 else f"{start}_{j}": entry for j, entry in enumerate(epsilon, start=1)}
