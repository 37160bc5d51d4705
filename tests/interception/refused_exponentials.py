"""What a module may do with a cross-entropy that takes part in an exponential: training with it is refused.

``ce(reduction)`` computes the cross-entropy.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

TARGET = torch.tensor([0, 1, 2, 0, 1, 2])
HOT = F.one_hot(TARGET, 3).float()
VALID = torch.tensor([True, False, True, True, False, True])

REFUSED = {}


def refused(function):
    REFUSED[function.__name__] = function
    return function


def focal(ce, pt):
    return (1 - pt) ** 2 * ce


def foreach_in_place(ce):
    parts = [-ce.detach()]
    torch._foreach_exp_(parts)
    return parts[0]


for reduction in ("mean", "sum", "none"):
    for name, pt_of in {
        "torch.exp": lambda ce: torch.exp(-ce),
        "Tensor.exp": lambda ce: (-ce).exp(),
        "keyword": lambda ce: torch.exp(input=-ce),
        "exp_": lambda ce: (-ce).exp_(),
        "out": lambda ce: torch.exp(-ce.detach(), out=torch.empty_like(ce)),
        "exp2": lambda ce: torch.exp2(-ce / math.log(2)),
        "expm1": lambda ce: 1 + torch.expm1(-ce),
        "special.exp2": lambda ce: torch.special.exp2(-ce / math.log(2)),
        "special.expm1": lambda ce: 1 + torch.special.expm1(-ce),
        "special.expit": lambda ce: torch.special.expit(-ce),
        "foreach_exp": lambda ce: torch._foreach_exp([-ce])[0],
        "foreach_exp_": foreach_in_place,
        "power of e": lambda ce: math.e**-ce,
        "torch.pow": lambda ce: torch.pow(math.e, -ce),
        "pow of a tensor": lambda ce: torch.tensor(math.e).pow(-ce),
        "pow by keyword": lambda ce: torch.pow(torch.tensor(math.e), exponent=-ce),
        "float_power": lambda ce: torch.float_power(math.e, -ce).float(),
        "ldexp": lambda ce: torch.ldexp(torch.ones(()), -ce),
        "sigmoid": lambda ce: torch.sigmoid(-ce),
        "F.sigmoid": lambda ce: F.sigmoid(-ce),
        "nn.Sigmoid": lambda ce: nn.Sigmoid()(-ce),
        "tanh": torch.tanh,
        "elu": lambda ce: 1 + F.elu(-ce),
        "selu": lambda ce: F.selu(-ce),
        "softplus": lambda ce: F.softplus(-ce),
        "logsigmoid": F.logsigmoid,
        "silu": F.silu,
        "gelu": F.gelu,
        "mish": F.mish,
        "cosh": torch.cosh,
        "logaddexp": lambda ce: torch.logaddexp(ce, ce),
        "detached": lambda ce: torch.exp(-ce.detach()),
        "detached after": lambda ce: torch.exp(-ce).detach(),
        "data": lambda ce: torch.exp(-ce.data),
        "cloned": lambda ce: torch.exp(-ce.clone().mul(1.0)),
        "by ops": lambda ce: torch.ops.aten.exp(-ce),
        "in float64": lambda ce: torch.exp(-ce.double()).float(),
        "clamped": lambda ce: torch.exp(-ce).clamp(1e-6, 1 - 1e-6),
        "of a hard mask": lambda ce: (torch.exp(-ce) > 0.5).float(),
    }.items():
        REFUSED[f"{name}, {reduction}"] = lambda ce, logits, r=reduction, f=pt_of: focal(ce(r), f(ce(r))).mean()


@refused
def minus_ce_first(ce, logits):
    logpt = -ce("mean")
    pt = torch.exp(logpt)
    return -((1 - pt) ** 2) * logpt


@refused
def without_gradient(ce, logits):
    loss = ce("mean")
    with torch.no_grad():
        pt = torch.exp(-loss)
    return focal(loss, pt)


@refused
def sum_over_n(ce, logits):
    loss = ce("sum") / 6
    return focal(loss, torch.exp(-loss))


@refused
def as_a_factor_in_place(ce, logits):
    loss = ce("none")
    weight = torch.exp(-loss.detach())
    loss *= weight
    return loss.mean()


@refused
def written_by_mask(ce, logits):
    buffer = torch.zeros(6)
    buffer[VALID] = ce("none")[VALID]
    return focal(buffer, torch.exp(-buffer)).mean()


@refused
def written_by_copy(ce, logits):
    buffer = torch.zeros(6)
    buffer.copy_(ce("none"))
    return focal(buffer, buffer.neg().exp()).mean()


@refused
def written_to_a_view(ce, logits):
    buffer = torch.zeros(2, 6)
    row = buffer[0]
    row.copy_(ce("none").detach())
    return focal(ce("none"), torch.exp(-buffer)[0]).mean()


@refused
def added_to_a_buffer(ce, logits):
    buffer = torch.zeros(6)
    buffer += ce("none")
    return focal(buffer, torch.exp(-buffer)).mean()


@refused
def scattered(ce, logits):
    buffer = torch.zeros(6).scatter(0, torch.arange(6), ce("none"))
    return focal(buffer, torch.exp(-buffer)).mean()


@refused
def picked_out(ce, logits):
    loss = ce("none")
    return sum(focal(one, torch.exp(-one)) for one in loss)


@refused
def unbound_and_stacked(ce, logits):
    loss = ce("none")
    return focal(loss, torch.stack([-one for one in loss.unbind()]).exp()).mean()


@refused
def sorted_and_cut(ce, logits):
    loss = ce("none").sort()[0][:3]
    return focal(loss, torch.exp(-loss)).mean()


@refused
def per_sample(ce, logits):
    losses = [F.cross_entropy(logits[i : i + 1], TARGET[i : i + 1]) for i in range(3)]
    return torch.stack([focal(loss, torch.exp(-loss)) for loss in losses]).mean()


@refused
def per_sample_in_a_buffer(ce, logits):
    buffer = torch.empty(3)
    for i in range(3):
        buffer[i] = F.cross_entropy(logits[i], TARGET[i])
    return focal(buffer, torch.exp(-buffer)).mean()


@refused
def by_vmap(ce, logits):
    return torch.vmap(lambda loss: focal(loss, torch.exp(-loss)))(ce("none")).mean()


@refused
def by_vmap_with_the_loss_inside(ce, logits):
    def of(x, t):
        loss = F.cross_entropy(x, t)
        return focal(loss, torch.exp(-loss))

    return torch.vmap(of)(logits, TARGET).mean()


@refused
def by_functional_gradient(ce, logits):
    def of(x):
        loss = F.cross_entropy(x, TARGET)
        return focal(loss, torch.exp(-loss.detach()))

    return (torch.func.grad(of)(logits) * logits).sum()


@refused
def softmax_over_losses(ce, logits):
    losses = torch.stack([ce("mean"), ce("sum")])
    return (losses * F.softmax(losses.detach(), 0)).sum()


@refused
def softmax_of_samples(ce, logits):
    loss = ce("none")
    return (nn.Softmax(0)(loss.detach()) * loss).sum()


@refused
def log_sum_exp(ce, logits):
    return torch.logsumexp(ce("none"), 0)


@refused
def softmin(ce, logits):
    loss = ce("none")
    return (F.softmin(loss, 0) * loss).sum()


@refused
def gumbel(ce, logits):
    loss = ce("none")
    return (F.gumbel_softmax(loss) * loss).sum()


@refused
def of_a_module(ce, logits):
    loss = nn.CrossEntropyLoss()(logits, TARGET)
    return focal(loss, torch.exp(-loss))


@refused
def of_binary(ce, logits):
    loss = nn.BCEWithLogitsLoss()(logits, HOT)
    return focal(loss, torch.exp(-loss))


@refused
def in_an_autograd_function(ce, logits):
    class Focal(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return focal(loss, torch.exp(-loss))

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    return Focal.apply(ce("mean")).mean()


@refused
def in_checkpointing(ce, logits):
    return torch.utils.checkpoint.checkpoint(lambda x: focal(x, torch.exp(-x)), ce("mean"), use_reentrant=False)


@refused
def in_reentrant_checkpointing(ce, logits):
    return torch.utils.checkpoint.checkpoint(lambda x: focal(x, torch.exp(-x)), ce("mean"), use_reentrant=True) * 1


@refused
def in_a_compiled_helper(ce, logits):
    return torch.compile(lambda x: focal(x, torch.exp(-x)), backend="aot_eager")(ce("mean"))


@refused
def in_compiled_code_with_the_loss(ce, logits):
    def of(x):
        loss = F.cross_entropy(x, TARGET)
        return focal(loss, torch.exp(-loss))

    return torch.compile(of, backend="aot_eager")(logits)


@refused
def in_compiled_code_detached(ce, logits):
    def of(x):
        loss = F.cross_entropy(x, TARGET)
        return focal(loss, torch.exp(-loss.detach()))

    return torch.compile(of, backend="aot_eager")(logits)
