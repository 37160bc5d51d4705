"""Keywords of other implementations are refused by name, so that none changes a number in silence."""

import re
from pathlib import Path

import pytest

from polyloss_lightning import Poly1CrossEntropyLoss, Poly1FocalLoss, Poly1SigmoidFocalLoss

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
(TABLE,) = re.findall(r"^## Old keywords\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
OF_CONSTRUCTORS = [
    *("num_classes", "eps", "poly1_eps", "ce_weight", "class_weights", "softmax", "label_is_onehot"),
    *("size_average", "reduce", "axis", "where"),
]
OF_CALLS = ["logits", "labels", "inputs", "targets", "x", "output"]


@pytest.mark.parametrize("keyword", [*OF_CONSTRUCTORS, *OF_CALLS, "alpha"])
def test_every_old_keyword_is_on_the_page(keyword):
    assert f"`{keyword}`" in TABLE


@pytest.mark.parametrize("keyword", OF_CONSTRUCTORS)
@pytest.mark.parametrize("loss", [Poly1CrossEntropyLoss, Poly1FocalLoss, Poly1SigmoidFocalLoss])
def test_constructors_refuse_old_keywords_by_name(loss, keyword):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{keyword}'"):
        loss(**{keyword: 1})


@pytest.mark.parametrize("keyword", OF_CALLS)
def test_calls_refuse_old_keywords_by_name(batch, keyword):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{keyword}'"):
        Poly1CrossEntropyLoss()(**{keyword: batch.input})


def test_softmax_focal_has_no_alpha():
    with pytest.raises(TypeError, match="unexpected keyword argument 'alpha'"):
        Poly1FocalLoss(alpha=0.25)


def test_only_epsilon_may_be_positional():
    with pytest.raises(TypeError, match="positional argument"):
        Poly1FocalLoss(10, 1.0)


def test_the_number_of_classes_in_the_first_place_is_epsilon():
    assert Poly1CrossEntropyLoss(10).epsilon == 10.0
