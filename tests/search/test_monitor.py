import pytest

from polyloss_lightning.search.monitor import check_monitor, find_monitor, mode_of, monitor_of, of_test_part


@pytest.mark.parametrize(
    "name", ["val/loss", "val_loss", "loss", "train/loss_epoch", "val/poly/loss", "val/poly/term_1"]
)
def test_the_loss_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match="must not move with epsilon"):
        check_monitor(name)


@pytest.mark.parametrize("name", ["val/balanced_accuracy", "val/poly/base_loss", "val/cross_entropy", "val/pt"])
def test_metrics_without_epsilon_are_accepted(name):
    assert check_monitor(name) == name


@pytest.mark.parametrize(
    ("checkpoint", "monitor", "mode", "expected"),
    [
        (("val/acc", "max"), None, None, ("val/acc", "max")),
        (("val/loss", "min"), None, None, (None, None)),
        (None, None, None, (None, None)),
        (None, "val/poly/base_loss", None, ("val/poly/base_loss", "min")),
        (("val/acc", "max"), "val/recall", None, ("val/recall", "max")),
        (("val/speed", "min"), "val/speed", None, ("val/speed", "min")),
        (None, "val/speed", "max", ("val/speed", "max")),
    ],
)
def test_monitor_and_mode(checkpoint, monitor, mode, expected):
    assert monitor_of(checkpoint, monitor, mode) == expected


def test_a_metric_of_unknown_direction_needs_a_mode():
    with pytest.raises(ValueError, match="`mode` must be given"):
        monitor_of(None, "val/speed", None)
    assert mode_of("val_error") == "min"


def test_a_mode_without_a_monitor_is_refused():
    with pytest.raises(ValueError, match="`mode` needs a monitor, got mode 'min'"):
        monitor_of(None, None, "min")


def test_without_a_monitor_balanced_accuracy_decides():
    assert find_monitor(["val/loss", "val/balanced_accuracy"], None) == "val/balanced_accuracy"
    with pytest.raises(ValueError, match=r"set it to one of \['val/acc'\]"):
        find_monitor(["val/loss", "val/acc"], None)


def test_name_on_the_test_part():
    assert of_test_part("val/poly/base_loss") == "test/poly/base_loss"
    assert of_test_part("accuracy") == "accuracy"
