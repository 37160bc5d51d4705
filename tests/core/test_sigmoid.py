import pytest
import torch

from polyloss_lightning.core import Sigmoid


def sigmoid_entries(input, target, **options):
    return Sigmoid(**options).entries(input, target)


def sigmoid_focal_entries(input, target, **options):
    return Sigmoid(**{"alpha": 0.25, **options}).entries(input, target)


INPUT = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
TARGET = torch.tensor([[1.0, 0.0, 0.25], [0.0, 1.0, -100.0]])


def test_each_element_gives_a_positive_and_a_negative():
    entries = sigmoid_entries(INPUT, TARGET)
    counts = TARGET != -100
    torch.testing.assert_close(entries.log_p[0][counts], INPUT.sigmoid().log()[counts])
    torch.testing.assert_close(entries.log_p[1][counts], (1 - INPUT.sigmoid()).log()[counts])
    assert entries.weight.tolist() == [[[1, 0, 0.25], [0, 1, 0]], [[0, 1, 0.75], [1, 0, 0]]]
    assert entries.denominator == 5
    assert entries.class_dim == 0
    assert entries.focal_base is None


def test_pos_weight_is_on_the_positive_and_weight_on_both():
    entries = sigmoid_entries(INPUT, TARGET, weight=torch.tensor([1.0, 2.0, 4.0]), pos_weight=torch.tensor([10.0]))
    assert entries.weight.tolist() == [[[10, 0, 10], [0, 20, 0]], [[0, 2, 3], [1, 0, 0]]]


def test_alpha_is_on_every_entry_and_there_is_one_focal_base_per_element():
    entries = sigmoid_focal_entries(INPUT, TARGET, alpha=0.25)
    torch.testing.assert_close(
        entries.weight,
        torch.tensor([[[0.25, 0, 0.15625], [0, 0.25, 0]], [[0, 0.75, 0.46875], [0.75, 0, 0]]]),
    )
    p = torch.tensor(0.5).sigmoid()
    torch.testing.assert_close(entries.focal_base[0, 0, 2], p * 0.75 + (1 - p) * 0.25)
    assert torch.equal(entries.focal_base[0], entries.focal_base[1])


@pytest.mark.parametrize("entries_of", [sigmoid_entries, sigmoid_focal_entries])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), [1, 0]),
        ((3,), [[1, 1, 1], [0, 0, 0]]),
        ((2, 1), [[[1], [1]], [[0], [0]]]),
        ((2, 3), [[[0, 1, 2], [0, 1, 2]], [[0, 1, 2], [0, 1, 2]]]),
    ],
)
def test_the_class_is_the_column_or_for_one_logit_its_sign(entries_of, shape, expected):
    assert entries_of(torch.zeros(shape), torch.zeros(shape)).target.tolist() == expected


def test_the_class_of_dense_entries_is_on_axis_one():
    target = sigmoid_entries(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)).target
    assert target.shape == (2, 2, 3, 4, 5)
    assert torch.equal(target, torch.arange(3).view(1, 1, 3, 1, 1).expand_as(target))


def test_class_indices_are_one_hot_and_ignored_by_sample():
    entries = sigmoid_focal_entries(INPUT, torch.tensor([1, 0]), alpha=-1, ignore_index=0, target_format="class_index")
    assert entries.weight.tolist() == [[[0, 1, 0], [0, 0, 0]], [[1, 0, 1], [0, 0, 0]]]
    assert entries.denominator == 3


@pytest.mark.parametrize("options", [{"weight": torch.ones(3)}, {"pos_weight": torch.ones(3)}])
def test_weights_on_another_device_are_not_copied_at_every_step(options):
    with pytest.raises(RuntimeError, match="device"):
        sigmoid_entries(INPUT.to("meta"), TARGET.to("meta"), **options)
