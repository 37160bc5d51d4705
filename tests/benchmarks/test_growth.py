"""The benchmark compares the same loss, and draws what it prints."""

import pytest
import torch


@pytest.fixture(scope="module")
def growth(load):
    return load("growth")


def test_every_loss_of_a_size_is_the_same_loss(growth):
    features, losses = growth.prepare(growth.Size(6, 4, 9), "cpu")
    usual = losses["usual"](features)
    torch.testing.assert_close(losses["ours"](features), usual)
    torch.testing.assert_close(losses["head"](features), usual)


def test_it_prints_every_size_and_draws_them(growth, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["growth.py", "--quick", "--figure", str(tmp_path / "figures" / "growth.png")])
    growth.main()
    printed = capsys.readouterr().out
    assert all(str(size) in printed for size in growth.QUICK)
    assert (tmp_path / "figures" / "growth.png").stat().st_size > 10_000


@pytest.mark.parametrize(("value", "word"), [(1.0, "met"), (1.01, "missed")])
def test_a_must_is_met_up_to_its_value(growth, value, word):
    assert word in growth.verdict(value, 1.0)
