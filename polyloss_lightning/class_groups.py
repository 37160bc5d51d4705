"""Dividing classes into head, middle and tail by the number of their training samples."""

from collections.abc import Sequence


def head_middle_tail(counts: Sequence[float]) -> dict[str, list[int]]:
    """Return the class indices of head, middle and tail, three groups of about the same number of classes.

    The head contains the most frequent classes and the tail the rarest ones. Within a group the most frequent class
    comes first. The result is empty if there are fewer than three classes, or if all are equally frequent.

    Example:
        >>> head_middle_tail([5, 40, 8, 100])
        {'head': [3, 1], 'middle': [2], 'tail': [0]}
    """
    size = len(counts)
    if size < 3 or min(counts) == max(counts):
        return {}
    order = sorted(range(size), key=lambda index: -counts[index])
    first, second = (size + 2) // 3, (2 * size + 1) // 3
    return {"head": order[:first], "middle": order[first:second], "tail": order[second:]}
