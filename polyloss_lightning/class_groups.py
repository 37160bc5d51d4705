"""Head, middle and tail: the thirds of the classes by training count."""

from collections.abc import Sequence


def thirds(counts: Sequence[float]) -> dict[str, list[int]]:
    """Class indices of head, middle and tail: the thirds of the classes, most frequent first.

    Empty where there are no thirds: fewer than three classes, or all equally frequent.

    Example:
        >>> thirds([5, 40, 8, 100])
        {'head': [3, 1], 'middle': [2], 'tail': [0]}
    """
    size = len(counts)
    if size < 3 or min(counts) == max(counts):
        return {}
    order = sorted(range(size), key=lambda index: -counts[index])
    first, second = (size + 2) // 3, (2 * size + 1) // 3
    return {"head": order[:first], "middle": order[first:second], "tail": order[second:]}
