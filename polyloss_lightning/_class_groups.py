"""Dividing classes into groups by the number of their training samples."""

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


def many_medium_few(counts: Sequence[float]) -> dict[str, list[int]]:
    """Return the class indices with over 100, with 20 to 100, and with under 20 training samples.

    This is the convention of long-tailed recognition (Liu et al., CVPR 2019). Empty groups are left out.

    Example:
        >>> many_medium_few([5, 40, 8, 101])
        {'many': [3], 'medium': [1], 'few': [0, 2]}
    """
    groups = {
        "many": [index for index, count in enumerate(counts) if count > 100],
        "medium": [index for index, count in enumerate(counts) if 20 <= count <= 100],
        "few": [index for index, count in enumerate(counts) if count < 20],
    }
    return {name: classes for name, classes in groups.items() if classes}
