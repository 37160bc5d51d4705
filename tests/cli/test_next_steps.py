"""The sentence about what Poly-1 did, compared with sums over samples."""

import pytest
import torch

from polyloss_lightning.cli.next_steps import describe
from polyloss_lightning.record import EpochRecord


@pytest.mark.parametrize("epsilon", [-1.0, 0.5, 2.0])
def test_the_factor_of_the_gradient_is_that_of_the_samples(epsilon):
    pt = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, gradient = 1 + epsilon, 1 / pt + epsilon  # of -dL/dPt
    metrics = {
        "first_term_share": float((first / gradient).mean()),
        "pt": float(pt.mean()),
        "term_2": float(((1 - pt) ** 2 / 2).mean()),
    }
    factor = ((1 - pt) * (1 + epsilon * pt)).sum() / (1 - pt).sum()
    sentence = describe(EpochRecord("train", "loss_fn", 9, 90, (epsilon,), 0.0, None, metrics, ()))
    assert sentence.endswith(f"epsilon {epsilon:.3g} scaled the gradient of the logits by {factor:.2g}")
    assert f"{100 * (first / gradient).mean():.0f} percent of dL/dPt" in sentence


def test_of_other_losses_only_the_share_is_known():
    metrics = {"first_term_share": 0.5, "pt": 0.5, "term_2": 0.2}
    for epsilon, gamma in (((1.0, 2.0), 0.0), ((1.0,), 2.0)):
        sentence = describe(EpochRecord("train", "loss_fn", 9, 90, epsilon, gamma, None, metrics, ()))
        assert sentence == "in the last epoch 50 percent of dL/dPt came from the first term, averaged over samples"
