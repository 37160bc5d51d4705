import itertools
import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning.callbacks.trainer.progress import Window

TOTALS = st.integers(1, 500)


@given(total=TOTALS)
def test_the_whole_run_goes_from_0_in_its_first_to_exactly_1_in_its_last_unit(total):
    t = [Window().t(unit, total) for unit in range(total)]
    assert t[-1] == 1
    assert t[0] == 0 or total == 1
    assert t == sorted(t)
    assert all(math.isclose(b - a, 1 / (total - 1)) for a, b in itertools.pairwise(t))


@given(total=TOTALS, begin=st.integers(0, 400), size=st.integers(2, 400))
def test_counts_are_units_and_need_no_total(total, begin, size):
    window = Window(begin, begin + size)
    assert not window.needs_total
    assert [window.t(unit, None) for unit in (0, begin, begin + size - 1, begin + size)] == [0, 0, 1, 1]
    assert [window.t(unit, total) for unit in range(600)] == [window.t(unit, None) for unit in range(600)]


@given(total=TOTALS, bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda b: b[0] < b[1]))
def test_fractions_are_rounded_to_units(total, bounds):
    window = Window(*bounds)
    begin, end = (round(bound * total) for bound in bounds)
    assert window.needs_total
    assert window.units(total) == (begin, end)
    for unit in range(total):
        t = window.t(unit, total)
        assert t == 0 if unit < begin else t == 1 if unit >= end - 1 else t == (unit - begin) / (end - 1 - begin)


def test_a_count_and_a_fraction_go_together():
    assert [Window(2, 0.5).t(unit, 10) for unit in range(6)] == [0, 0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("bounds", "error", "match"),
    [
        ((0.0, 1.5), ValueError, r"`end`.*\[0, 1\].*1\.5"),
        ((-0.1, None), ValueError, r"`begin`.*\[0, 1\].*-0\.1"),
        ((math.nan, None), ValueError, "`begin`.*nan"),
        ((-1, None), ValueError, "`begin`.*at least 0.*-1"),
        ((0, 1), ValueError, r"begin=0 and end=1; .*end=1\.0"),
        ((5, 5), ValueError, "begin=5 and end=5"),
        ((0.5, 0.5), ValueError, "greater than `begin`"),
        ((True, None), TypeError, "`begin`.*bool"),
        ((0, "0.5"), TypeError, "`end`.*'0.5'"),
    ],
)
def test_a_window_out_of_range_is_an_error_that_says_so(bounds, error, match):
    with pytest.raises(error, match=match):
        Window(*bounds)


def test_numbers_of_numpy_are_counts_and_fractions():
    assert Window(numpy.int64(1), numpy.float32(0.5)) == Window(1, 0.5)
