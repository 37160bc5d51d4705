import pytest

from polyloss_lightning.callbacks import EpsilonScheduler, PolyLossOverride, PolynomialTermMonitor
from polyloss_lightning.schedules import ConstantSchedule


@pytest.mark.parametrize(
    ("callback", "shown"),
    [
        (
            EpsilonScheduler(ConstantSchedule(1.0), loss="a"),
            "EpsilonScheduler(schedule=ConstantSchedule(value=1.0), interval='step', begin=0, end=None, loss=('a',), "
            "total=None, log_epsilon=True, prog_bar=False)",
        ),
        (
            PolyLossOverride(2, losses=["nll_loss"], name="a"),
            "PolyLossOverride(epsilon=2.0, losses=['nll_loss'], scope=None, stages=('train',), elementwise='error', "
            "on_nothing='error', name='a')",
        ),
        (
            PolynomialTermMonitor(2, per_class=True),
            "PolynomialTermMonitor(num_terms=2, stages=('train', 'val', 'test'), losses=None, per_class=True, "
            "num_classes=None, prog_bar=(), record=True, figures=True)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_repr_shows_the_arguments(callback, shown):
    assert repr(callback) == shown


@pytest.mark.parametrize("callback", [EpsilonScheduler(ConstantSchedule(1.0)), PolynomialTermMonitor()], ids=repr)
def test_a_state_in_another_format_is_warned_of_and_not_restored(callback):
    before = callback.state_dict()
    with pytest.warns(UserWarning, match=rf"state of {type(callback).__name__} .* format 99, but .* not restored"):
        callback.load_state_dict({"version": 99, "something": "else"})
    assert callback.state_dict() == before
