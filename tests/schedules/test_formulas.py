import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning.schedules import (
    ConstantSchedule,
    CosineSchedule,
    CyclicSchedule,
    ExponentialSchedule,
    LinearSchedule,
    PiecewiseSchedule,
    PolynomialSchedule,
)

T = st.floats(0, 1)
INIT, END = -1.0, 2.0


def close(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12)


@given(T)
def test_ramps_follow_their_formulas(t):
    assert ConstantSchedule(END)(t) == END
    assert LinearSchedule(INIT, END)(t) == close(INIT + (END - INIT) * t)
    assert CosineSchedule(INIT, END)(t) == close(END + (INIT - END) * (1 + math.cos(math.pi * t)) / 2)
    assert PolynomialSchedule(INIT, END, power=2.5)(t) == close((INIT - END) * (1 - t) ** 2.5 + END)
    assert PolynomialSchedule(INIT, END)(t) == close(LinearSchedule(INIT, END)(t))


@given(T, st.floats(0.1, 8), st.sampled_from([1, -1]))
def test_an_exponential_has_a_constant_rate(t, size, sign):
    rate = sign * size
    asymptote = (END - INIT * math.exp(-rate)) / (1 - math.exp(-rate))
    tolerance = 1e-12 * (1 + abs(asymptote))
    value = ExponentialSchedule(INIT, END, rate=rate)(t)
    assert value == pytest.approx(asymptote + (INIT - asymptote) * math.exp(-rate * t), abs=tolerance, rel=1e-9)


@given(T, st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_geometric_schedule_is_the_exponential_of_its_own_rate(t, init, end):
    value = ExponentialSchedule(-init, -end)(t)
    assert value == pytest.approx(-init * (end / init) ** t, rel=1e-12)
    if abs(math.log(init / end)) > 1e-3:
        assert value == pytest.approx(ExponentialSchedule(-init, -end, rate=math.log(init / end))(t), rel=1e-9)


def test_a_sequence_moves_entry_by_entry():
    schedule = ExponentialSchedule([1.0, -4.0], [4.0, -1.0])
    assert schedule(0.5) == close((2.0, -2.0))


@given(T)
def test_a_step_holds_from_its_boundary_to_the_next(t):
    schedule = PiecewiseSchedule(-1.0, [0.2, 0.7], [0.5, 2.0])
    assert schedule(t) == (-1.0 if t < 0.2 else 0.5 if t < 0.7 else 2.0)


@given(T)
def test_lines_connect_the_values_and_the_last_one_holds(t):
    schedule = PiecewiseSchedule([-1.0, 1.0], [0.2, 0.7], [[0.5, 0.0], [2.0, 1.0]], interpolation="linear")
    first = -1 + 1.5 * t / 0.2 if t < 0.2 else 0.5 + 1.5 * (t - 0.2) / 0.5 if t < 0.7 else 2.0
    second = 1 - t / 0.2 if t < 0.2 else (t - 0.2) / 0.5 if t < 0.7 else 1.0
    assert schedule(t) == close((first, second))
    assert [schedule(t)[0] for t in (0.0, 0.2, 0.7, 1.0)] == [-1.0, 0.5, 2.0, 2.0]


def test_a_boundary_at_1_is_reached():
    assert PiecewiseSchedule(0.0, [1.0], [2.0])(1.0) == 2.0
    assert PiecewiseSchedule(0.0, [1.0], [2.0], interpolation="linear")(0.25) == 0.5


@given(T, st.integers(1, 5))
def test_cycles_repeat_their_shape(t, cycles):
    f = math.fmod(cycles * t, 1)
    triangle = 2 * f if f < 0.5 else 2 - 2 * f
    assert CyclicSchedule(INIT, END, cycles)(t) == close(INIT + (END - INIT) * triangle)
    wave = CyclicSchedule(INIT, END, cycles, shape="cosine")(t)
    assert wave == close(INIT + (END - INIT) * math.sin(math.pi * cycles * t) ** 2)


@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_every_cycle_reaches_its_peak(cycles):
    schedule = CyclicSchedule(INIT, END, cycles)
    assert [schedule((i + 0.5) / cycles) for i in range(cycles)] == [END] * cycles
