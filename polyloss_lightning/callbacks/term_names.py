"""The names under which the polynomial terms are logged."""

import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

Stage: TypeAlias = Literal["train", "val", "test"]


def scalar_names(num_terms: int) -> list[str]:
    """Return the names of the scalars of :class:`~polyloss_lightning.metrics.PolynomialTerms`."""
    terms = [f"term_{j}" for j in range(1, num_terms + 1)]
    return [*terms, "tail", "loss", "base_loss", "correction", "first_term_share", "pt"]


def prefix(stage: Stage | Literal[""], path: str, several: bool) -> str:
    """Return ``{stage}/poly/``, followed by the path of the loss if there are several; without a stage ``poly/``.

    Example:
        >>> prefix("train", "loss_fn", several=False), prefix("val", "heads.0.loss", several=True)
        ('train/poly/', 'val/poly/heads.0.loss/')
    """
    loss = re.sub(r"[^A-Za-z0-9_./-]", "_", path) + "/" if several else ""
    return f"{stage}/poly/{loss}".lstrip("/")


def epsilon_values(path: str, several: bool, epsilon: Sequence[float]) -> dict[str, float]:
    """Return each epsilon by the name under which it is logged.

    Example:
        >>> epsilon_values("loss_fn", False, [1.0]), epsilon_values("loss_fn", True, [1.0, 0.5])
        ({'poly/epsilon': 1.0}, {'poly/loss_fn/epsilon_1': 1.0, 'poly/loss_fn/epsilon_2': 0.5})
    """
    start = prefix("", path, several) + "epsilon"
    return {start if len(epsilon) == 1 else f"{start}_{j}": entry for j, entry in enumerate(epsilon, start=1)}


def check_choices(name: str, given: object, allowed: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Return ``given`` as a tuple.

    Raises:
        TypeError: if it is not a sequence of strings.
        ValueError: if it contains a string that is not in ``allowed``.
    """
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
        raise TypeError(f"`{name}` must be a sequence of strings, got {given!r}")
    wrong = [one for one in given if allowed is not None and one not in allowed]
    if wrong:
        raise ValueError(f"`{name}` may only contain {list(allowed or ())}, got {wrong}")
    return tuple(given)
