"""What the printed tables say is so: every loss is right and finite in every dtype, the usual formulation is not."""

import pytest
import torch


@pytest.fixture(scope="module")
def accuracy(load):
    return load("accuracy")


ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.mark.parametrize("dtype", ROUNDING)
def test_every_loss_is_right_and_finite_where_the_usual_formulation_is_not(accuracy, dtype):
    for label, gamma, ours, usual, exact, (input, target) in accuracy.rows():
        bound = 1.1 * ROUNDING[dtype]
        value, gradient, broken = map(float, accuracy.cells(ours, exact, input.to(dtype), target))
        assert value <= bound, (label, gamma)
        assert gradient <= bound, (label, gamma)
        assert broken == 0, (label, gamma)
        value, gradient, broken = map(float, accuracy.cells(usual, exact, input.to(dtype), target))
        assert value > 5 * bound, (label, gamma)
        assert gradient > 5 * bound, (label, gamma)
        assert (broken > 0) == (gamma in ("0.1", "0.5")), (label, gamma)


def test_prints_a_row_for_each_loss_gamma_and_dtype(accuracy, capsys):
    accuracy.main()
    printed = capsys.readouterr().out
    assert printed.count("| Poly1") == len(accuracy.DTYPES) * len(accuracy.rows())
    assert all(f"for {dtype} logits" in printed for dtype in ("float32", "bfloat16", "float16"))
    assert all(f"| Poly1FocalLoss | {gamma} |" in printed for gamma in ("0.1", "0.5", "1", "2", "5"))


def test_reference_is_the_definition(accuracy):
    input, target = torch.randn(7, 4, dtype=torch.float64), torch.randint(4, (7,))
    miss = 1 - input.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    for gamma in (0.0, 2.0):
        expected = miss**gamma * (-(1 - miss).log() + accuracy.EPSILON * miss)
        torch.testing.assert_close(accuracy.exact_softmax(gamma)(input, target), expected)
