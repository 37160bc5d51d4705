import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning._class_groups import head_middle_tail, many_medium_few


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=200).filter(lambda counts: len(set(counts)) > 1))
def test_thirds_part_the_classes_by_count_into_sizes_that_differ_by_one_at_most(counts):
    head, middle, tail = head_middle_tail(counts).values()
    assert sorted([*head, *middle, *tail]) == list(range(len(counts)))
    assert max(map(len, (head, middle, tail))) - min(map(len, (head, middle, tail))) <= 1
    ordered = [counts[index] for index in (*head, *middle, *tail)]
    assert ordered == sorted(counts, reverse=True)


@pytest.mark.parametrize("counts", [[], [4], [4, 2], [3, 3, 3, 3]])
def test_few_or_equally_frequent_classes_have_no_thirds(counts):
    assert head_middle_tail(counts) == {}


@given(st.lists(st.integers(0, 300), max_size=50))
def test_many_medium_and_few_are_over_100_20_to_100_and_under_20(counts):
    groups = many_medium_few(counts)
    assert sorted(index for classes in groups.values() for index in classes) == list(range(len(counts)))
    limits = {"many": (101, 300), "medium": (20, 100), "few": (0, 19)}
    for name, classes in groups.items():
        assert classes
        assert all(limits[name][0] <= counts[index] <= limits[name][1] for index in classes)
