import torch

from polyloss_lightning.callbacks.term_sums import TermSums
from polyloss_lightning.core import Observation


def observation(device):
    ones = torch.ones(4, device=device)
    return Observation(-ones, ones, ones.long(), ones.sum(), (1.0,), 0.0, None)


def test_the_values_of_a_step_do_not_wait_for_the_device():
    """Meta tensors hold no values: whatever needs one fails."""
    sums = TermSums(3)
    sums.begin("train", ["loss_fn"], None, torch.device("meta"))
    values = sums.compute_step("loss_fn", [("loss_fn", observation("meta"))])
    assert values["loss"].is_meta


def test_a_step_without_a_call_has_no_values():
    sums = TermSums(3)
    sums.begin("train", ["a", "b"], None, torch.device("cpu"))
    assert sums.compute_step("a", [("b", observation("cpu"))]) == {}
    assert sums.compute_step("b", [("b", observation("cpu"))])["pt"] > 0


def test_a_step_that_is_not_counted_yet_is_part_of_the_state_and_is_not_counted():
    sums = TermSums(3)
    sums.begin("train", ["loss_fn"], None, torch.device("cpu"))
    seen = [("loss_fn", observation("cpu"))]
    state = sums.state_dict(seen, sync=False)
    assert not sums.state_dict([], sync=False)["loss_fn"].any()
    sums.update("train", seen)
    torch.testing.assert_close(sums.state_dict([], sync=False), state)
