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
    monkeypatch.setattr("sys.argv", ["growth.py", "--quick", "--figure", str(tmp_path / "figures" / "growth.svg")])
    growth.main()
    printed = capsys.readouterr().out
    assert all(str(size) in printed for size in growth.QUICK)
    drawn = (tmp_path / "figures" / "growth.svg").read_text(encoding="utf-8")
    assert drawn.count("<path") > 20


def test_the_head_is_judged_by_the_setting_that_does_worse(growth):
    def found(seconds, beside):
        results = {}
        for size in growth.MUSTS:
            logits, gradients = 4 * size.batch * size.classes, 4 * size.features * (size.batch + size.classes)
            head = growth.Measured(seconds, beside * logits + gradients)
            results[size] = {"torch": growth.Measured([1.0] * 5, 3 * logits), "head": head}
        return results

    fast, slow = [0.7, 0.7, 0.8, 0.9, 1.4], [1.5] * 5
    for warm, verdict in ((fast, "met"), (slow, "missed")):
        rows = growth.head_rows({growth.STOCK: found(fast, 0.25), growth.WARM: found(warm, 0.25)})
        assert rows[0][1:6] == ["1000", "0.80 [0.70 1.40]", growth.spread(warm), "1", verdict]
        assert rows[0][6:] == ["3.00", "0.32", "0.25", "0.3", "met"]
    rows = growth.head_rows({growth.STOCK: found(fast, 0.4)})
    assert [row[-1] for row in rows] == ["missed", "met", "met"]
