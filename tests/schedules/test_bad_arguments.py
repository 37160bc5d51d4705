import math

import pytest

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

C = ConstantSchedule(1.0)


@pytest.mark.parametrize(
    ("schedule", "arguments", "error", "match"),
    [
        (ConstantSchedule, (math.nan,), ValueError, "`value` must be finite, got nan"),
        (ConstantSchedule, ("1",), TypeError, "`value`.*'1'.*str"),
        (ConstantSchedule, (True,), TypeError, "`value`.*bool"),
        (ConstantSchedule, ([],), ValueError, "`value`.*at least one"),
        (LinearSchedule, (0.0, math.inf), ValueError, "`end_value` must be finite, got inf"),
        (LinearSchedule, ([0.0, None], [1.0, 2.0]), TypeError, r"`init_value\[1\]`.*None"),
        (LinearSchedule, ([0.0, 1.0], [1.0]), ValueError, "`init_value` 2 in a sequence, `end_value` 1 in a sequence"),
        (CosineSchedule, (0.0, [1.0]), ValueError, "`init_value` a number, `end_value` 1 in a sequence"),
        (PolynomialSchedule, (0.0, 1.0, 0.0), ValueError, "`power` must be above 0, got 0.0"),
        (PolynomialSchedule, (0.0, 1.0, "2"), TypeError, "`power`.*'2'"),
        (ExponentialSchedule, (-1.0, 2.0), ValueError, "same sign.*-1 and 2; give `rate`"),
        (ExponentialSchedule, (0.0, 2.0), ValueError, "not be 0, got 0 and 2"),
        (ExponentialSchedule, ([1.0, 1.0], [2.0, 0.0]), ValueError, "got 1 and 0"),
        (ExponentialSchedule, (0.0, 2.0, 0.0), ValueError, "`rate`.*not 0.*LinearSchedule"),
        (ExponentialSchedule, (0.0, 2.0, 701), ValueError, "`rate`.*-700, 700.*701"),
        (ExponentialSchedule, (0.0, 2.0, math.nan), ValueError, "`rate` must be finite"),
        (PiecewiseSchedule, (0.0, [0.5], [1.0], "cubic"), ValueError, "`interpolation`.*'step', 'linear'.*'cubic'"),
        (PiecewiseSchedule, (0.0, [0.5, 0.5], [1.0, 2.0]), ValueError, "`boundaries`.*strictly increasing"),
        (PiecewiseSchedule, (0.0, [0.0], [1.0]), ValueError, r"`boundaries`.*\(0, 1\]"),
        (PiecewiseSchedule, (0.0, [30], [1.0]), ValueError, r"`boundaries`.*fractions.*\[30\]"),
        (PiecewiseSchedule, (0.0, 0.5, [1.0]), TypeError, "`boundaries`.*sequence.*0.5"),
        (PiecewiseSchedule, (0.0, [0.5], 1.0), TypeError, "`values`.*sequence.*1.0"),
        (PiecewiseSchedule, (0.0, [0.5], [1.0, 2.0]), ValueError, "2 values for 1 boundaries"),
        (PiecewiseSchedule, (0.0, [], []), ValueError, "at least one"),
        (PiecewiseSchedule, (0.0, [0.5], [[1.0, 2.0]]), ValueError, r"`values\[0\]` 2 in a sequence"),
        (CyclicSchedule, (0.0, 1.0, 0), ValueError, "`cycles`.*at least 1, got 0"),
        (CyclicSchedule, (0.0, 1.0, 1.5), ValueError, "`cycles`.*1.5"),
        (CyclicSchedule, (0.0, 1.0, 1, "square"), ValueError, "`shape`.*'triangle', 'cosine'.*'square'"),
        (JoinedSchedule, ([C, C], []), ValueError, "2 schedules and 0 boundaries"),
        (JoinedSchedule, ([], []), ValueError, "0 schedules and 0 boundaries"),
        (JoinedSchedule, ([C, 2.0], [0.5]), TypeError, "sequence of schedules"),
        (JoinedSchedule, (C, []), TypeError, "sequence of schedules"),
        (JoinedSchedule, ([C, C], [1.0]), ValueError, r"`boundaries`.*\(0, 1\), got \[1.0\]"),
        (JoinedSchedule, ([C, ConstantSchedule([1.0])], [0.5]), ValueError, r"`schedules\[1\]` 1 in a sequence"),
    ],
)
def test_bad_arguments_are_errors_that_name_them(schedule, arguments, error, match):
    with pytest.raises(error, match=match):
        schedule(*arguments)


def test_the_base_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Schedule()
