"""What the printed table says is so: every loss is right in float32 and finite, the usual formulation is not."""

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def accuracy():
    spec = importlib.util.spec_from_file_location("accuracy", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_loss_is_right_and_finite_where_the_usual_formulation_is_not(accuracy):
    for label, ours, usual, exact, (input, target) in accuracy.rows():
        value, gradient, broken = map(float, accuracy.cells(label, ours, exact, input, target))
        bound = 1e-3 if "CrossEntropy" in label else 1e-5  # whose log Pt is as accurate as torch's own
        assert value < bound, label
        assert gradient < bound, label
        assert broken == 0, label
        bf16 = input.bfloat16()
        assert float(accuracy.cells(label, ours, exact, bf16, target)[0]) < 0.01, label
        assert float(accuracy.cells(label, usual, exact, bf16, target)[0]) > 0.1, label


def test_prints_a_row_for_each_loss_and_dtype(accuracy, capsys):
    accuracy.main()
    printed = capsys.readouterr().out
    assert printed.count("| Poly1") == 2 * len(accuracy.rows())
    assert "bfloat16" in printed


def test_reference_is_the_definition(accuracy):
    input, target = torch.randn(7, 4, dtype=torch.float64), torch.randint(4, (7,))
    miss = 1 - input.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    for gamma in (0.0, 2.0):
        expected = miss**gamma * (-(1 - miss).log() + accuracy.EPSILON * miss)
        torch.testing.assert_close(accuracy.exact_softmax(gamma)(input, target), expected)
