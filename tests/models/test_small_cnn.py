import pytest
import torch

from polyloss_lightning.models import SmallCNN


@pytest.mark.parametrize("size", [8, 15, 28, 32, 64])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_images_of_any_small_size_become_logits(size, in_channels):
    network = SmallCNN(num_classes=7, in_channels=in_channels, width=4)
    assert network(torch.randn(2, in_channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("size", [8, 16, 28, 32, 64])
def test_the_last_convolution_has_a_map_of_4x4(size):
    network, maps = SmallCNN(width=4), []
    network.features[3].register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0].shape))
    network(torch.randn(2, 1, size, size))
    assert maps == [(2, 8, 4, 4)]


def test_it_is_small():
    assert 20_000 < sum(parameter.numel() for parameter in SmallCNN().parameters()) < 100_000


def test_in_evaluation_a_sample_does_not_depend_on_its_batch():
    network, images = SmallCNN(width=4).eval(), torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(network(images)[2:3], network(images[2:3]))


def test_every_parameter_learns():
    network = SmallCNN(width=4)
    torch.nn.functional.cross_entropy(network(torch.randn(8, 1, 8, 8)), torch.arange(8)).backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in network.parameters())


@pytest.mark.parametrize("name", ["num_classes", "in_channels", "width"])
def test_arguments_below_one_are_named(name):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1, got 0"):
        SmallCNN(**{name: 0})
    with pytest.raises(TypeError, match=f"`{name}` must be an integer of at least 1, got '8'"):
        SmallCNN(**{name: "8"})
