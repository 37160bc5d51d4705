"""Weights and alphas that the functions refuse, because only the modules convert and validate them."""

import pytest
import torch

import polyloss_lightning as poly


@pytest.mark.parametrize(
    ("function", "option"),
    [
        (poly.functional.poly1_cross_entropy, {"weight": [1.0, 2.0, 3.0]}),
        (poly.functional.poly1_focal_loss, {"weight": 2.0}),
        (poly.functional.poly1_binary_cross_entropy_with_logits, {"pos_weight": 2.0}),
        (poly.functional.poly1_sigmoid_focal_loss, {"weight": [1.0, 2.0, 3.0]}),
    ],
)
def test_weights_of_functions_must_be_tensors(function, option):
    (name,) = option
    with pytest.raises(TypeError, match=rf"`{name}` must be a tensor or None, got [\[2]"):
        function(torch.zeros(2, 3), torch.zeros(2, 3), **option)


@pytest.mark.parametrize("shape", [(), (1,), (5, 5), (5, 1)])
def test_an_alpha_tensor_holds_one_number_per_class(shape):
    input = torch.zeros(5, 5)
    with pytest.raises(ValueError, match=r"`alpha` must be a number or hold one number per class .* got shape \("):
        poly.functional.poly1_sigmoid_focal_loss(input, input, alpha=torch.full(shape, 0.5))


def test_an_alpha_of_minus_one_is_a_float_and_an_array_is_refused_by_name():
    assert repr(poly.Poly1SigmoidFocalLoss(alpha=-1).alpha) == "-1.0"
    with pytest.raises(TypeError, match="`alpha` must be a number"):
        poly.Poly1SigmoidFocalLoss(alpha=torch.ones(2).numpy())
