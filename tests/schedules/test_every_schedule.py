import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyloss_lightning.schedules import (
    ConstantSchedule,
    CosineSchedule,
    CyclicSchedule,
    ExponentialSchedule,
    JoinedSchedule,
    LinearSchedule,
    PiecewiseSchedule,
    PolynomialSchedule,
    Schedule,
)

T = st.floats(0, 1)
NUMBER = st.floats(-1e6, 1e6) | st.sampled_from([-1.0, 0.0, 0.1, 0.3, 1e-300, 1e300])
PAIR = st.tuples(NUMBER, NUMBER) | st.integers(1, 3).flatmap(
    lambda n: st.tuples(*[st.lists(NUMBER, min_size=n, max_size=n)] * 2)
)
RATE = st.floats(-700, 700).filter(bool)
SAME_SIGN = st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300), st.sampled_from([1, -1])).map(
    lambda x: (x[0] * x[2], x[1] * x[2])
)
RAMPS = st.one_of(
    PAIR.map(lambda ends: LinearSchedule(*ends)),
    PAIR.map(lambda ends: CosineSchedule(*ends)),
    st.builds(lambda ends, power: PolynomialSchedule(*ends, power=power), PAIR, st.floats(0.01, 20)),
    st.builds(lambda ends, rate: ExponentialSchedule(*ends, rate=rate), PAIR, RATE),
    SAME_SIGN.map(lambda ends: ExponentialSchedule(*ends)),
)
CYCLES = st.builds(
    lambda ends, cycles, shape: CyclicSchedule(*ends, cycles=cycles, shape=shape),
    PAIR,
    st.integers(1, 9),
    st.sampled_from(["triangle", "cosine"]),
)
EVERY = st.one_of(RAMPS, CYCLES, NUMBER.map(ConstantSchedule))
EXAMPLES = [
    ConstantSchedule(2.0),
    LinearSchedule(-1.0, 2.0),
    CosineSchedule([0.0, 1.0], [1.0, 0.0]),
    PolynomialSchedule(-1.0, 2.0, power=2.0),
    ExponentialSchedule(4.0, 1.0),
    ExponentialSchedule(-1.0, 2.0, rate=5.0),
    PiecewiseSchedule(-1.0, [0.5], [2.0]),
    CyclicSchedule(-1.0, 2.0, cycles=3),
    JoinedSchedule([ConstantSchedule(-1.0), LinearSchedule(-1.0, 2.0)], [0.5]),
]


def entries(value):
    return value if isinstance(value, tuple) else (value,)


def plain(value):
    return tuple(value) if isinstance(value, list | tuple) else value


@given(RAMPS)
def test_the_ends_are_exact(schedule):
    assert schedule(0.0) == plain(schedule.init_value)
    assert schedule(1.0) == plain(schedule.end_value)


@given(RAMPS, T, T)
def test_a_ramp_stays_between_its_ends_and_never_turns_back(schedule, s, t):
    early, late = schedule(min(s, t)), schedule(max(s, t))
    for init, a, b, end in zip(*map(entries, (schedule.init_value, early, late, schedule.end_value)), strict=True):
        assert min(init, end) <= a <= max(init, end)
        rounding = 1e-12 * max(abs(init), abs(end))
        assert (b - a) * (1 if end >= init else -1) >= -rounding


@given(CYCLES, T)
def test_a_cycle_begins_and_ends_at_init_value_and_stays_below_its_peak(schedule, t):
    assert schedule(0.0) == schedule(1.0) == plain(schedule.init_value)
    for init, value, peak in zip(*map(entries, (schedule.init_value, schedule(t), schedule.peak_value)), strict=True):
        assert min(init, peak) <= value <= max(init, peak)


@given(EVERY, T)
def test_a_value_is_of_python_floats_of_the_length_of_the_arguments(schedule, t):
    value = schedule(t)
    assert isinstance(value, tuple if isinstance(schedule(0), tuple) else float)
    assert all(type(entry) is float for entry in entries(value))
    assert len(entries(value)) == len(entries(schedule(0)))


@given(EVERY, T)
def test_pickle_and_copy_give_an_equal_schedule(schedule, t):
    for copied in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert copied == schedule
        assert hash(copied) == hash(schedule)
        assert copied(t) == schedule(t)
    assert eval(repr(schedule)) == schedule


@given(st.lists(EVERY.filter(lambda s: not isinstance(s(0), tuple)), min_size=1, max_size=4), st.data())
def test_a_join_gives_each_schedule_its_own_whole_t(schedules, data):
    n = len(schedules) - 1
    boundaries = sorted(data.draw(st.sets(st.integers(1, 99), min_size=n, max_size=n)))
    joined = JoinedSchedule(schedules, [boundary / 100 for boundary in boundaries])
    knots = [0.0, *joined.boundaries, 1.0]
    for i, schedule in enumerate(schedules):
        assert joined(knots[i]) == schedule(0.0)
        t = data.draw(st.floats(knots[i], knots[i + 1], exclude_max=True))
        assert joined(t) == schedule((t - knots[i]) / (knots[i + 1] - knots[i]))
    assert joined(1.0) == schedules[-1](1.0)


@pytest.mark.parametrize("schedule", EXAMPLES, ids=repr)
@pytest.mark.parametrize("t", [-1e-9, 1.0000001, float("nan"), float("inf")])
def test_t_out_of_range_is_an_error(schedule, t):
    with pytest.raises(ValueError, match=r"t in \[0, 1\], got"):
        schedule(t)


def test_a_schedule_of_your_own_joins_the_others():
    class Square(Schedule):
        def value_at(self, t):
            return t * t

    joined = JoinedSchedule([Square(), ConstantSchedule(1)], [0.5])
    assert [joined(t) for t in (0, 0.25, 0.5, 1)] == [0, 0.25, 1, 1]


def test_schedules_import_only_the_standard_library_and_the_checks():
    import ast
    import sys
    from pathlib import Path

    import polyloss_lightning.schedules as package

    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                ours = ("polyloss_lightning.schedules", "polyloss_lightning._checks")
                assert name.split(".")[0] in sys.stdlib_module_names or name.startswith(ours)
