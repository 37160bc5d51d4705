import torch

from polyloss_lightning.callbacks.monitor.sums import PassSums
from polyloss_lightning.core import Observation


def observation(device="cpu", count=4):
    ones = torch.ones(count, device=device)
    return Observation(-ones, ones, ones.long(), ones.sum(), (1.0,), 0.0, None)


class OneProcess:
    """All of a Trainer that the sums need."""

    world_size, interrupted = 1, False


def begun(paths=("loss_fn",), device="cpu", num_classes=None):
    sums = PassSums(3)
    sums.num_classes = num_classes
    sums.begin("train", paths, torch.device(device))
    return sums


def test_a_step_does_not_wait_for_the_device():
    """Meta tensors hold no values: whatever needs one fails."""
    step = begun(device="meta", num_classes=4).add("train", [("loss_fn", observation("meta"))])
    assert step["loss_fn"].is_meta


def test_a_step_has_the_losses_that_it_called_with_all_their_calls():
    step = begun(["a", "b"]).add("train", [("b", observation()), ("b", observation(count=2))])
    assert list(step) == ["b"]
    assert step["b"][8] == 6  # the denominators


def test_the_end_of_a_pass_sets_its_sums_to_zero():
    sums = begun()
    for _ in range(2):
        sums.add("train", [("loss_fn", observation())])
    assert sums.state(OneProcess)["loss_fn"][8] == 8
    assert sums.end(OneProcess, "train")["loss_fn"][8] == 8
    assert not sums.state(OneProcess)["loss_fn"].any()


def test_sums_are_restored_if_their_size_is_the_same():
    sums = begun()
    sums.add("train", [("loss_fn", observation())])
    state = sums.state(OneProcess)
    for num_classes, expected in ((None, 4), (4, 0)):
        other = begun(num_classes=num_classes)
        other.restore(state)
        assert other.state(OneProcess)["loss_fn"][8] == expected
