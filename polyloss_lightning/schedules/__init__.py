"""Schedules for a changing epsilon: pure, picklable functions of t in [0, 1]. No dependencies."""

from polyloss_lightning.schedules.base import Schedule
from polyloss_lightning.schedules.constant import ConstantSchedule
from polyloss_lightning.schedules.cyclic import CyclicSchedule
from polyloss_lightning.schedules.exponential import ExponentialSchedule
from polyloss_lightning.schedules.joined import JoinedSchedule
from polyloss_lightning.schedules.piecewise import PiecewiseSchedule
from polyloss_lightning.schedules.ramp import CosineSchedule, LinearSchedule, PolynomialSchedule

__all__ = [
    "ConstantSchedule",
    "CosineSchedule",
    "CyclicSchedule",
    "ExponentialSchedule",
    "JoinedSchedule",
    "LinearSchedule",
    "PiecewiseSchedule",
    "PolynomialSchedule",
    "Schedule",
]
