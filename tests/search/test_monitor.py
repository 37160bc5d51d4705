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


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        (
            "min",
            "val_loss base_loss val/poly/base_loss valloss log_loss logloss val_loss/dataloader_idx_0 val_error "
            "error_rate calibration_error cross_entropy val/crossentropy perplexity val/nll val_rmse val/ece ece15 "
            "brier_score val_err",
        ),
        (
            "max",
            "val/receipt_f1 val/piece_acc val/gloss_accuracy val/balanced_accuracy bacc val/acc1 top5_acc val/acc@5 "
            "val_acc_epoch val/recall_class/3 auroc val/miou map50 val/mAP@50 val/pt macro_f1score r2",
        ),
    ],
)
def test_whole_words_of_the_name_decide_the_mode(mode, names):
    assert {name: mode_of(name) for name in names.split()} == dict.fromkeys(names.split(), mode)


@pytest.mark.parametrize("name", ["val/dice_loss", "val/auc_error"])
def test_a_name_with_words_for_both_modes_needs_a_mode(name):
    with pytest.raises(ValueError, match=r"`mode` must be given .* means that a small value is good, and"):
        mode_of(name)


def test_a_mode_without_a_monitor_is_refused():
    with pytest.raises(ValueError, match="`mode` needs a monitor, got mode 'min'"):
        monitor_of(None, None, "min")


def test_without_a_monitor_balanced_accuracy_decides():
    assert find_monitor(["val/loss", "val/balanced_accuracy"], None) == "val/balanced_accuracy"
    with pytest.raises(ValueError, match=r"the run has no .* Set it to one of \['val/acc'\]"):
        find_monitor(["val/loss", "val/acc"], None)


def test_name_on_the_test_part():
    assert of_test_part("val/poly/base_loss") == "test/poly/base_loss"
    assert of_test_part("accuracy") == "accuracy"
