"""What a module may do with a cross-entropy without training with an exponential of it: accepted, and right.

``ce(reduction)`` computes the cross-entropy.
"""

import math

import pytest
import torch
import torch.nn.functional as F

TARGET = torch.tensor([0, 1, 2, 0, 1, 2])
HOT = F.one_hot(TARGET, 3).float()
VALID = torch.tensor([True, False, True, True, False, True])

ACCEPTED = {}


def accepted(function):
    ACCEPTED[function.__name__] = function
    return function


def poly_by_hand(logits, target, reduction="mean"):
    log_p = torch.log_softmax(logits, 1)[range(len(target)), target]
    loss = -log_p + 2.0 * (1 - log_p.exp())
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]


@accepted
def mean(ce, logits):
    return ce("mean")


@accepted
def masked_mean(ce, logits):
    """As in chemprop, torchvision's SSD and pytorch-forecasting."""
    return (ce("none").view(2, 3) * VALID.view(2, 3)).sum() / VALID.sum()


@accepted
def hardest(ce, logits):
    return ce("none").sort(descending=True)[0][:3].mean()


@accepted
def perplexity_is_logged(ce, logits):
    loss = ce("mean")
    assert torch.exp(loss) > 0
    assert loss.exp().item() == pytest.approx(math.exp(loss.item()))
    return loss


@accepted
def perplexity_is_kept(ce, logits):
    loss = ce("mean")
    logits.perplexity = torch.exp(loss.detach())
    logits.running = torch.zeros(()).add_(logits.perplexity)
    return loss


@accepted
def pow_of_a_loss(ce, logits):
    return torch.pow(input=ce("mean"), exponent=2) + ce("none").pow(2.0).sum() + ce("mean") ** 3


@accepted
def exponential_of_a_mask(ce, logits):
    loss = ce("none")
    return (torch.exp((loss > 1).float()) * loss).mean()


@accepted
def exponential_of_an_index(ce, logits):
    loss = ce("none")
    return (torch.exp(-loss.argsort().argsort().float()) * loss).sum()


@accepted
def exponential_of_a_shape(ce, logits):
    loss = ce("none")
    weight = torch.exp(torch.zeros_like(loss) + loss.new_ones(6) + torch.full_like(loss, 0.5) + torch.ones(loss.shape))
    return (weight * loss).mean()


@accepted
def exponential_of_a_dtype(ce, logits):
    loss = ce("none")
    weight = torch.exp(torch.arange(6).to(loss) + torch.arange(6).type_as(loss) + torch.ones(1).expand_as(loss))
    return (weight * loss).mean()


@accepted
def exponential_of_a_broadcast(ce, logits):
    loss = ce("none")
    weight, loss = torch.broadcast_tensors(torch.ones(1), loss)
    return (torch.exp(weight) * loss).mean()


@accepted
def uncertainty_weighting(ce, logits):
    log_variance = torch.zeros(2, requires_grad=True)
    return (torch.exp(-log_variance) * torch.stack([ce("mean"), ce("sum")]) + log_variance).sum()


@accepted
def variational(ce, logits):
    mu, log_variance = logits[:, 0], logits[:, 1]
    return ce("sum") - 0.5 * torch.sum(1 + log_variance - mu**2 - log_variance.exp())


@accepted
def distillation(ce, logits):
    teacher = torch.softmax(torch.linspace(0, 1, 18).view(6, 3), 1)
    return ce("mean") + F.kl_div(F.log_softmax(logits, 1), teacher, reduction="batchmean")


@accepted
def dice(ce, logits):
    p = torch.sigmoid(logits)
    return ce("mean") + 1 - 2 * (p * HOT).sum() / (p + HOT).sum()


@accepted
def focal_from_the_logits(ce, logits):
    pt = torch.softmax(logits, 1)[range(6), TARGET]
    return ((1 - pt) ** 2 * ce("none")).mean()


@accepted
def a_second_head_after_the_first_loss(ce, logits):
    first = ce("mean")
    second = poly_by_hand(torch.softmax(logits @ torch.eye(3), 1), TARGET)
    return first + second


@accepted
def a_loss_in_a_buffer(ce, logits):
    buffer = torch.zeros(6)
    buffer[VALID] = ce("none")[VALID]
    return buffer.sum() / VALID.sum() + torch.exp(logits.detach()).mean()


@accepted
def checked_for_nan(ce, logits):
    loss = ce("mean")
    return torch.where(loss.isnan() | ~loss.isfinite(), torch.zeros(()), loss) if loss.isfinite().all() else loss


@accepted
def flooded_and_clipped(ce, logits):
    loss = (ce("mean") - 0.1).abs() + 0.1
    return torch.clamp(loss, max=100.0) + torch.nan_to_num(ce("sum")).sqrt() + torch.log1p(ce("mean"))


@accepted
def by_relative_rate(ce, logits):
    losses = torch.stack([ce("mean"), ce("sum")])
    weight = (losses.detach() / losses.detach().mean()) ** 1.5
    return (losses * weight).sum()


@accepted
def by_vmap_and_mean(ce, logits):
    return torch.vmap(lambda loss, weight: loss * torch.exp(weight))(ce("none"), torch.ones(6)).mean()


@accepted
def inner_gradient_step(ce, logits):
    """As in MAML: a network with a softmax follows a gradient of the loss."""
    gradient = torch.autograd.grad(ce("mean"), logits, create_graph=True)[0]
    adapted = torch.softmax(logits - 0.1 * gradient, 1)
    return ce("mean") + adapted.square().sum()


@accepted
def in_compiled_code_with_a_mean(ce, logits):
    return torch.compile(lambda loss, x: loss.mean() + torch.exp(x).mean(), backend="aot_eager")(ce("none"), logits)
