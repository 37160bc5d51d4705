"""What users do with the losses that their authors did not write: subclass them, build them on the meta device."""

import pytest
import torch
import torch.nn.functional as F

from polyloss_lightning import Poly1CrossEntropyLoss, PolyLoss
from polyloss_lightning.core import Entries


class OfClasses(Poly1CrossEntropyLoss):
    def __init__(self, classes=3, **options):
        super().__init__(weight=[1.0] * classes, **options)


def test_a_subclass_with_arguments_of_its_own_prints():
    assert repr(OfClasses(epsilon=2.0)).startswith("OfClasses(")
    assert OfClasses().arguments() == {"epsilon": 1.0}


def test_class_weights_survive_construction_on_the_meta_device():
    with torch.device("meta"):
        loss = Poly1CrossEntropyLoss(weight=[1.0, 2.0, 3.0])
    assert loss.weight.tolist() == [1.0, 2.0, 3.0]


class Tempered(Poly1CrossEntropyLoss):
    """A loss of one's own: Poly-1 cross-entropy with a temperature."""

    def __init__(self, epsilon=1.0, *, temperature=1.0, **options):
        super().__init__(epsilon, **options)
        self.temperature = temperature

    def entries(self, input, target):
        return super().entries(input / self.temperature, target)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_entries_of_its_own_make_a_loss_of_its_own(reduction, smoothing):
    input, target = torch.randn(6, 3, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 2, 0, -100, 1])
    options = {"reduction": reduction, "label_smoothing": smoothing, "weight": torch.tensor([1.0, 2.0, 3.0]).double()}
    loss, seen = Tempered(2.0, temperature=4.0, **options), []
    expected = Poly1CrossEntropyLoss(2.0, **options)(input / 4, target)
    with loss.register_observer(seen.append):
        actual = loss(input, target)
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(value.sum(), input)[0] for value in (actual, expected)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(loss.base_loss(input, target), F.cross_entropy(input / 4, target, **options))
    assert len(seen) == 1


class Hinge(PolyLoss):
    """Entries without a link: Pt is the sigmoid of the margin."""

    def entries(self, input, target):
        log_p = F.logsigmoid(input.gather(1, target.unsqueeze(1)).squeeze(1))
        weight = torch.ones_like(log_p)
        return Entries(log_p, weight, target, weight.sum(), None, input.dtype)


def test_a_loss_from_the_base_needs_entries_only():
    input, target = torch.tensor([[0.0, 1.0], [2.0, 0.0]], requires_grad=True), torch.tensor([1, 0])
    margin = torch.tensor([1.0, 2.0])
    expected = (-F.logsigmoid(margin) + 0.5 * torch.sigmoid(-margin)).mean()
    torch.testing.assert_close(Hinge(0.5)(input, target), expected)
    with pytest.raises(TypeError, match="Nothing must override `entries`"):
        type("Nothing", (PolyLoss,), {})()


def test_entries_of_a_mixin_count():
    class Halved:
        def entries(self, input, target):
            return super().entries(input / 2, target)

    class Mixed(Halved, Poly1CrossEntropyLoss):
        pass

    input, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(Mixed()(input, target), Poly1CrossEntropyLoss()(input / 2, target))
