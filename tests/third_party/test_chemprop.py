import numpy
import pytest
from chemprop import data, models, nn


@pytest.fixture
def batch():
    def of(classes):
        molecules = ["CCO", "c1ccccc1", "CC(=O)O", "CCN"]
        targets = numpy.array([[0.0], [1.0], [float("nan")], [classes - 1.0]])  # one is unknown: it is masked
        points = [data.MoleculeDatapoint.from_smi(smi, y) for smi, y in zip(molecules, targets, strict=True)]
        return data.collate_batch([*data.MoleculeDataset(points)])

    return of


def network(predictor):
    return models.MPNN(nn.BondMessagePassing(d_h=16), nn.MeanAggregation(), predictor)


def test_multiclass_message_passing_network(check, cross_entropy, batch):
    model = network(nn.MulticlassClassificationFFN(n_classes=3, input_dim=16))
    check(model, batch(3), cross_entropy, elementwise="apply")


def test_binary_message_passing_network(check, binary, batch):
    model = network(nn.BinaryClassificationFFN(input_dim=16))
    check(model, batch(2), binary, elementwise="apply")
