"""An exponential of a replaced loss is refused if it takes part in what is trained, and not if it does not."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from polyloss_lightning.interception import LossOverrideError, override_losses

# torch.compile itself looks at the gradient of each input
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
TARGET = torch.tensor([0, 1, 2, 0, 1, 2])
HOT = F.one_hot(TARGET, 3).float()
VALID = torch.tensor([True, False, True, True, False, True])


@pytest.fixture
def logits():
    return torch.randn(6, 3, requires_grad=True)


def poly_by_hand(logits, target, reduction="mean"):
    log_p = torch.log_softmax(logits, 1)[range(len(target)), target]
    loss = -log_p + 2.0 * (1 - log_p.exp())
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]


# What a module does with a cross-entropy: `ce(reduction)` computes it.

REFUSED = {}
ACCEPTED = {}


def refused(function):
    REFUSED[function.__name__] = function
    return function


def accepted(function):
    ACCEPTED[function.__name__] = function
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


def by_torch(logits):
    return lambda reduction: F.cross_entropy(logits, TARGET, reduction=reduction)


def by_hand(logits):
    return lambda reduction: poly_by_hand(logits, TARGET, reduction)


@pytest.fixture(autouse=True)
def _fresh_compiler(request):
    if "compiled" in request.node.name:
        torch.compiler.reset()


@pytest.mark.parametrize("name", REFUSED)
def test_an_exponential_that_is_trained_with_is_refused(logits, name):
    refusal = pytest.raises(LossOverrideError, match=r"test_exponentials.py:\d+ .*pt = exp\(-ce\)(?s:.*)LossProvider")
    with refusal, override_losses(2.0, elementwise="apply"):
        REFUSED[name](by_torch(logits), logits).backward()
    with refusal:
        with override_losses(2.0, elementwise="apply"):
            loss = REFUSED[name](by_torch(logits), logits)
        loss.backward()
    assert logits.grad is None


class Running:
    """Steps that keep a running mean of their losses."""

    def __init__(self):
        self.override = override_losses(2.0)
        self.mean = torch.ones(())

    def step(self, logits, weight=torch.ones_like):
        with self.override.replacing():
            loss = F.cross_entropy(logits, TARGET)
            value = weight(self.mean) * loss
            self.mean = 0.9 * self.mean + 0.1 * loss.detach()
            value.backward()


def test_an_exponential_of_the_losses_of_earlier_steps_is_refused(logits):
    running = Running()
    running.step(logits)
    with pytest.raises(LossOverrideError, match="pt = exp"):
        running.step(logits, lambda mean: torch.exp(-mean))


def test_one_that_is_only_logged_is_not_and_other_uses_are_not(logits):
    running = Running()
    for _ in range(4):
        assert torch.exp(running.mean) > 0
        running.step(logits, lambda mean: 1 / mean)


@pytest.mark.parametrize("elementwise", ["error", "skip"])
@pytest.mark.parametrize("name", ["torch.exp, mean", "detached, sum", "of_binary", "softmax_over_losses"])
def test_it_is_refused_for_every_choice_of_elementwise(logits, name, elementwise):
    with pytest.raises(LossOverrideError, match="pt = exp"), override_losses(2.0, elementwise=elementwise):
        REFUSED[name](by_torch(logits), logits).backward()


@pytest.mark.parametrize("name", ["torch.exp, none", "written_by_mask", "log_sum_exp"])
def test_a_loss_that_is_skipped_may_be_exponentiated(logits, name):
    with override_losses(2.0, elementwise="skip"):
        loss = REFUSED[name](by_torch(logits), logits)
        F.cross_entropy(logits, TARGET)
    torch.testing.assert_close(loss, REFUSED[name](by_torch(logits), logits))
    loss.backward()


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_not_trained_with_an_exponential_is_accepted_and_right(logits, name):
    for _ in range(3):  # compiled code is not compiled while a loss is new
        with override_losses(2.0, elementwise="apply"):
            loss = ACCEPTED[name](by_torch(logits), logits)
            (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        torch.testing.assert_close(gradient, torch.autograd.grad(loss, logits)[0])
        expected = ACCEPTED[name](by_hand(logits), logits)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0], rtol=1e-4, atol=1e-5)


@pytest.fixture
def script():
    def script(function):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated
            return torch.jit.script(function)

    return script


@pytest.mark.parametrize("warm", [False, True])
def test_scripted_code_is_refused_if_it_contains_an_exponential_or_is_opaque(logits, script, warm):
    def scripted_focal(loss):
        return (1 - torch.exp(-loss)) ** 2 * loss

    helper = script(scripted_focal)
    for _ in range(3 if warm else 0):  # scripted code is fused after some calls, and opaque from then on
        helper(F.cross_entropy(logits, TARGET))
    with pytest.raises(LossOverrideError, match="Scripted code calls"), override_losses(2.0, elementwise="apply"):
        helper(F.cross_entropy(logits, TARGET)).backward()
    if warm:
        with pytest.warns(UserWarning, match="It cannot be seen whether scripted code"), override_losses(2.0):
            helper(F.cross_entropy(logits, TARGET)).backward()


def test_scripted_code_without_an_exponential_is_accepted(logits, script):
    def scripted_mean(loss, weight):
        return (loss * weight).sum() / weight.sum()

    helper, weight = script(scripted_mean), torch.rand(6)
    for _ in range(3):
        with override_losses(2.0, elementwise="apply"):
            loss = helper(F.cross_entropy(logits, TARGET, reduction="none"), weight)
            loss.backward()
        torch.testing.assert_close(loss, (poly_by_hand(logits, TARGET, "none") * weight).sum() / weight.sum())


def test_what_is_followed_is_forgotten_after_the_backward_pass(logits):
    with override_losses() as override:
        for _ in range(5):  # what is left of a new loss is followed a little longer
            F.cross_entropy(logits, TARGET).backward()
        assert not override._mode.exponentials.active


def test_compiled_code_that_takes_an_exponential_later_is_refused_at_the_latest_in_the_next_step(logits):
    torch.compiler.reset()

    @torch.compile(backend="aot_eager")
    def helper(loss, late):
        return focal(loss, torch.exp(-loss)) if late else loss * 2

    override = override_losses(2.0)

    def step(late):
        with override.replacing():
            helper(F.cross_entropy(logits, TARGET), late).backward()

    def steps(late, count):
        for _ in range(count):
            step(late)

    steps(late=False, count=6)
    with pytest.raises(LossOverrideError, match="calls exp"):
        steps(late=True, count=2)
