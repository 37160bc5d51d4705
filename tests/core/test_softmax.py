import pytest
import torch

from polyloss_lightning.core import Softmax


def softmax_entries(input, target, **options):
    return Softmax(**options).entries(input, target)


INPUT = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0]])
TARGET = torch.tensor([0, 2, 1])
WEIGHT = torch.tensor([1.0, 2.0, 4.0])


def test_index_targets_give_one_entry_a_sample():
    entries = softmax_entries(INPUT, TARGET)
    torch.testing.assert_close(entries.log_p, INPUT.log_softmax(1)[torch.arange(3), TARGET].unsqueeze(1))
    assert entries.weight.tolist() == [[1], [1], [1]]
    assert entries.target.tolist() == [[0], [2], [1]]
    assert entries.denominator == 3
    assert entries.class_dim == 1


def test_class_weights_weigh_entries_and_denominator():
    entries = softmax_entries(INPUT, TARGET, weight=WEIGHT)
    assert entries.weight.tolist() == [[1], [4], [2]]
    assert entries.denominator == 7


@pytest.mark.parametrize("ignore_index", [-100, -1, 1, 255])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_ignored_entries_have_no_weight_and_a_class_in_range(ignore_index, smoothing, weight):
    target = torch.tensor([0, ignore_index, 2])
    entries = softmax_entries(INPUT, target, weight=weight, ignore_index=ignore_index, label_smoothing=smoothing)
    assert entries.log_p[1].abs().max() == 0
    assert entries.weight[1].abs().max() == 0
    assert entries.target.min() >= 0
    assert entries.target.max() < 3
    assert entries.denominator == (2 if weight is None else 5)


def test_smoothing_gives_one_entry_a_sample_and_class():
    entries = softmax_entries(INPUT, TARGET, weight=WEIGHT, label_smoothing=0.3)
    share = 0.7 * torch.eye(3)[TARGET] + 0.1
    torch.testing.assert_close(entries.log_p, INPUT.log_softmax(1))
    torch.testing.assert_close(entries.weight, share * WEIGHT)
    assert entries.target.tolist() == [[0, 1, 2]] * 3
    assert entries.denominator == 7  # the weights of the targets, as without smoothing
    assert entries.class_dim == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_probability_targets_divide_by_the_number_of_samples_whatever_the_weights(smoothing):
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]])
    entries = softmax_entries(INPUT, probabilities, weight=WEIGHT, label_smoothing=smoothing)
    torch.testing.assert_close(entries.weight, ((1 - smoothing) * probabilities + smoothing / 3) * WEIGHT)
    assert entries.denominator == 3


@pytest.mark.parametrize(
    ("shape", "class_dim"), [((4,), 0), ((5, 4), 1), ((5, 4, 2), 1), ((5, 4, 2, 3), 1), ((5, 4, 2, 3, 2), 1)]
)
def test_the_class_axis_is_the_second_or_the_only_one(shape, class_dim):
    input = torch.randn(shape)
    target = torch.randint(4, shape[:class_dim] + shape[class_dim + 1 :])
    assert softmax_entries(input, target).log_p.squeeze(class_dim).shape == target.shape
    smoothed = softmax_entries(input, target, label_smoothing=0.1)
    assert smoothed.log_p.shape == smoothed.target.shape == smoothed.weight.shape == input.shape
    assert smoothed.class_dim == class_dim
    assert softmax_entries(input, input.softmax(class_dim)).denominator == target.numel()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32(dtype):
    entries = softmax_entries(INPUT.to(dtype), TARGET, weight=WEIGHT)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert {entries.log_p.dtype, entries.weight.dtype, entries.denominator.dtype} == {expected}
    assert entries.dtype == dtype


def test_masked_class_without_share_is_no_nan():
    input = torch.tensor([[1.0, -torch.inf, 0.0]])
    entries = softmax_entries(input, torch.tensor([[0.5, 0.0, 0.5]]))
    assert entries.log_p[0, 1] == 0
    assert softmax_entries(input, torch.tensor([[0.5, 0.5, 0.0]])).log_p[0, 1] == -torch.inf


@pytest.mark.parametrize(
    ("input", "target", "error", "message"),
    [
        (torch.ones(2, 3, dtype=torch.int64), torch.zeros(2).long(), TypeError, "`input` must .* torch.int64"),
        (torch.tensor(1.0), torch.tensor(0), ValueError, "`input` must have a class axis"),
        (torch.ones(2, 3), torch.zeros(3).long(), ValueError, r"shape \(2,\) or .* shape \(2, 3\).* got shape \(3,\)"),
        (torch.ones(2, 3, 4), torch.zeros(2, 3).long(), ValueError, r"shape \(2, 4\).* got shape \(2, 3\)"),
        (torch.ones(3), torch.zeros(1).long(), ValueError, r"shape \(\).* got shape \(1,\)"),
        (torch.ones(2, 3), torch.ones(2, 4), ValueError, r"got shape \(2, 4\)"),
        (torch.ones(2, 3), torch.zeros(2), TypeError, "`target` must hold class indices .* torch.float32"),
        (torch.ones(2, 3), torch.zeros(2, dtype=torch.int32), TypeError, "`target` .* torch.int32"),
        (torch.ones(2, 3), torch.zeros(2, dtype=torch.bool), TypeError, "`target` .* torch.bool"),
        (torch.ones(2, 3), torch.zeros(2, 3).long(), TypeError, "must hold class probabilities .* torch.int64"),
    ],
)
def test_input_and_target_that_do_not_fit_are_refused_by_name(input, target, error, message):
    with pytest.raises(error, match=message):
        softmax_entries(input, target)


def test_weight_of_the_wrong_length_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`weight` must have shape \(3,\).* got shape \(2,\)"):
        softmax_entries(INPUT, TARGET, weight=torch.ones(2))


def test_ignore_index_among_the_classes_has_no_meaning_for_probabilities():
    with pytest.raises(ValueError, match=r"`ignore_index` has no meaning .* got 1"):
        softmax_entries(INPUT, INPUT.softmax(1), ignore_index=1)


@pytest.mark.parametrize("bad", [3, -1])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_target_out_of_range_raises(bad, weight, smoothing):
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        softmax_entries(INPUT, torch.tensor([0, bad, 1]), weight=weight, label_smoothing=smoothing)
