"""What users do with the losses that their authors did not write: subclass them, build them on the meta device."""

import torch

from polyloss_lightning import Poly1CrossEntropyLoss


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
