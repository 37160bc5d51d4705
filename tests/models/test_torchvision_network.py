import sys
from urllib.error import URLError

import pytest
import torch

from polyloss_lightning.models import TorchvisionNetwork

torchvision = pytest.importorskip("torchvision")

SMALLEST = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_16", "wide_resnet50_2",
]  # fmt: skip


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_network_of_each_family_has_the_classes_and_channels(name):
    # On the meta device, because most take seconds otherwise; RegNet computes its widths with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = TorchvisionNetwork(name, num_classes=7, in_channels=1)
        size = 299 if name == "inception_v3" else 224
        assert network(torch.empty(2, 1, size, size)).shape == (2, 7)


def test_every_family_is_tested():
    models = torchvision.models
    modules = {models.get_model_builder(name).__module__ for name in models.list_models(module=models)}
    assert {models.get_model_builder(name).__module__ for name in SMALLEST} == modules


def test_it_computes_what_torchvision_computes():
    torch.manual_seed(1)
    network = TorchvisionNetwork("resnet18", num_classes=5).eval()
    torch.manual_seed(1)
    expected = torchvision.models.resnet18(num_classes=5).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(images), expected(images))


@pytest.mark.parametrize("in_channels", [1, 3])
def test_weights_of_a_file_are_used_except_for_the_head(tmp_path, in_channels):
    trained = torchvision.models.squeezenet1_1(num_classes=11)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    network = TorchvisionNetwork("squeezenet1_1", 3, in_channels, weights=str(tmp_path / "weights.pt")).network
    expected, found = trained.state_dict(), network.state_dict()
    first, head = "features.0.weight", ("classifier.1.weight", "classifier.1.bias")
    for name in expected.keys() - {first, *head}:
        assert torch.equal(expected[name], found[name]), name
    # A grey image has the same output as its three equal channels.
    torch.testing.assert_close(found[first].sum(1), expected[first].sum(1))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="are not those of resnet18"):
        TorchvisionNetwork("resnet18", 3, weights=str(tmp_path / "weights.pt"))


def test_weights_with_the_channels_of_the_images_are_not_averaged(tmp_path):
    trained = TorchvisionNetwork("squeezenet1_1", 3, in_channels=1).network.state_dict()
    torch.save(trained, tmp_path / "weights.pt")
    found = TorchvisionNetwork("squeezenet1_1", 3, 1, weights=str(tmp_path / "weights.pt")).network.state_dict()
    assert all(torch.equal(trained[name], found[name]) for name in trained)


@pytest.mark.parametrize(
    ("content", "error", "named"),
    [
        ({"state_dict": {"network.conv1.weight": torch.zeros(1)}}, ValueError, "are not those of resnet18"),
        ({"conv1.weight": "text"}, ValueError, "are not those of resnet18"),
        ({"conv1.weight": torch.zeros(3)}, ValueError, "are not those of resnet18"),
        (torch.zeros(3), ValueError, r"must be a file with a state_dict, and .*weights\.pt has a Tensor"),
        (b"not a checkpoint", OSError, r"cannot read the weights .*weights\.pt: it is not a file of torch.save"),
        (b"", OSError, r"cannot read the weights .*weights\.pt: "),
    ],
)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_file_without_weights_is_named(tmp_path, content, error, named, in_channels):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(error, match=named):
        TorchvisionNetwork("resnet18", 3, in_channels, weights=str(path))


def test_weights_that_cannot_be_downloaded_are_an_error_with_the_alternatives(monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("offline")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(OSError, match=r"cannot download .*`weights: null` .* download https://.* path of the file"):
        TorchvisionNetwork("squeezenet1_1", 3, weights="DEFAULT")


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"name": "resnet1"}, ValueError, "`name` must be .*resnet18.* got 'resnet1'"),
        ({"name": "resnet18", "weights": "BEST"}, ValueError, "`weights` must be null, a path or one of .* got 'BEST'"),
        ({"name": "resnet18", "weights": "folder/nothing.pt"}, FileNotFoundError, "nothing.pt"),
        ({"name": "resnet18", "num_classes": 0}, ValueError, "`num_classes` must be"),
        ({"name": "resnet18", "in_channels": 0}, ValueError, "`in_channels` must be"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, named):
    with pytest.raises(error, match=named):
        TorchvisionNetwork(**arguments)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "polyloss-lightning\[vision\]"'):
        TorchvisionNetwork("resnet18")
