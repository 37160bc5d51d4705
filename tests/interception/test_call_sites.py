"""Never silent: what was replaced, where, and why not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from polyloss_lightning.interception import LossOverrideError, override_losses

LOGITS, TARGET = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
ONE_HOT = F.one_hot(TARGET, 3).float()


def line_of(text):
    """The line of this file that holds ``text`` after a call."""
    with open(__file__) as file:
        return next(number for number, line in enumerate(file, start=1) if f"# {text}" in line)


def test_the_table_names_function_reduction_shape_place_and_reason():
    with override_losses(losses=["cross_entropy", "sigmoid_focal_loss"]) as override:
        nn.CrossEntropyLoss(reduction="sum")(LOGITS, TARGET)  # the module
        F.binary_cross_entropy_with_logits(LOGITS, ONE_HOT)  # the other
        sigmoid_focal_loss(LOGITS, ONE_HOT, reduction="mean")  # the focal loss
    rows = [line.split() for line in override.table().splitlines()]
    assert rows[0] == ["function", "reduction", "shape", "called", "from", "replaced"]
    here = "tests/interception/test_call_sites.py"
    assert rows[1] == ["cross_entropy", "sum", "(4,", "3)", f"{here}:{line_of('the module')}", "yes"]
    name, place = "binary_cross_entropy_with_logits", f"{here}:{line_of('the other')}"
    assert rows[2] == [name, "mean", "(4,", "3)", place, "no:", "not", "in", "losses"]
    assert rows[3] == ["sigmoid_focal_loss", "mean", "(4,", "3)", f"{here}:{line_of('the focal loss')}", "yes"]


def test_calls_from_one_place_are_counted_not_repeated():
    with override_losses() as override:
        for size in (2, 3):
            F.cross_entropy(LOGITS[:size], TARGET[:size])
    (site,) = override.call_sites
    assert (site.calls, site.shape, site.replaced, site.reason) == (2, (3, 3), True, "")


def test_a_block_in_which_nothing_was_replaced_is_an_error_that_says_what_was_seen():
    seen = r"(?s)Looked for: cross_entropy\..*sigmoid_focal_loss .*not in losses"
    with pytest.raises(LossOverrideError, match=seen), override_losses(losses=["cross_entropy"]):
        sigmoid_focal_loss(LOGITS, ONE_HOT)
    with pytest.raises(LossOverrideError, match="No call of these functions was seen"), override_losses():
        F.mse_loss(LOGITS, LOGITS)


def test_a_block_in_which_nothing_was_replaced_may_only_warn():
    with pytest.warns(UserWarning, match="No loss was replaced"), override_losses(on_nothing="warn"):
        pass


def test_an_exception_is_not_covered_up_by_the_missing_loss():
    with pytest.raises(KeyError), override_losses():
        raise KeyError


def test_the_example_of_a_place_in_an_error_is_file_and_line():
    with pytest.raises(LossOverrideError) as error, override_losses():
        F.cross_entropy(LOGITS, TARGET, reduction="none")  # the elementwise
    assert f"{__file__}:{line_of('the elementwise')} calls cross_entropy with reduction='none'" in str(error.value)
    assert "elementwise='apply'" in str(error.value)
