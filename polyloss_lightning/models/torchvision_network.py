"""The networks of torchvision, with any number of classes and channels."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from polyloss_lightning._checks import check_integer


class TorchvisionNetwork(nn.Module):
    """A classification network of :func:`torchvision.models.get_model`, for any number of classes and channels.

    With pretrained weights every layer takes them, except for those whose shape depends on the number of classes, which
    start at random. If the number of channels is not three, the first convolution starts from the mean of the
    pretrained weights over the colours, unless a file has weights for this number. (The how-to guide for your own
    images shows how to use the networks of timm.)

    Args:
        name: name of the network, such as ``resnet18``; :func:`torchvision.models.list_models` lists them.
        num_classes: number of classes.
        in_channels: number of channels of the images.
        weights: None starts at random; ``"DEFAULT"`` or another name of torchvision's weights of this network downloads
            them; a path reads a file with a ``state_dict`` of it.

    Shape:
        - input: ``(N, in_channels, H, W)``. Some networks need a minimum size, and the vision transformers 224x224.
        - output: logits, ``(N, num_classes)``.

    Raises:
        ModuleNotFoundError: if torchvision is missing.
        OSError: if the weights cannot be downloaded or read.
        ValueError: if the name of the network or of the weights is unknown, a file has no weights of the network, or a
            number is below 1.

    Example:
        >>> network = TorchvisionNetwork("squeezenet1_1", num_classes=3, in_channels=1)
        >>> network(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 3])
    """

    def __init__(self, name: str, num_classes: int = 1000, in_channels: int = 3, weights: str | None = None) -> None:
        super().__init__()
        for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
            check_integer(argument, value, "an integer of at least 1", at_least=1)
        self.name = name
        # In training these two would return the output of an auxiliary head as well.
        options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        self.network = _models().get_model(_checked(name), weights=None, num_classes=num_classes, **options)
        state = None if weights is None else _state_dict(name, weights)
        if in_channels != 3:
            key, first = next(item for item in self.network.named_modules() if isinstance(item[1], nn.Conv2d))
            self.network.set_submodule(key, _with_channels(first, in_channels))
            kernel = None if state is None else state.get(f"{key}.weight")
            if state is not None and isinstance(kernel, Tensor) and kernel.shape[1:2] == (3,):
                state[f"{key}.weight"] = kernel.mean(1, keepdim=True).repeat(1, in_channels, 1, 1) * (3 / in_channels)
        if state is not None:
            _load(self.network, state, name, weights)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits of ``input``."""
        logits: Tensor = self.network(input)
        return logits


def _models() -> Any:
    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'TorchvisionNetwork needs torchvision: pip install "polyloss-lightning[vision]"', name=error.name
        ) from error
    return models


def _checked(name: str) -> str:
    names = _models().list_models(module=_models())
    if name not in names:
        raise ValueError(f"`name` must be a classification network of torchvision ({', '.join(names)}), got {name!r}")
    return name


def _with_channels(convolution: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """Return a new convolution that differs from ``convolution`` in the number of input channels only."""
    names = ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    options = {name: getattr(convolution, name) for name in names}
    return nn.Conv2d(in_channels, bias=convolution.bias is not None, **options)


def _state_dict(name: str, weights: str) -> dict[str, Tensor]:
    if os.path.sep in weights or Path(weights).suffix or Path(weights).is_file():
        if not Path(weights).is_file():
            raise FileNotFoundError(f"`weights` must be null, the name of weights or a file, and there is no {weights}")
        return _read(weights)
    every = _models().get_model_weights(name).__members__
    if weights not in every:
        raise ValueError(f"`weights` must be null, a path or one of {', '.join(every)} for {name}, got {weights!r}")
    try:
        # Of a complete network, because torchvision renames some parameters when it loads them.
        state: dict[str, Tensor] = _models().get_model(name, weights=every[weights]).state_dict()
    except (URLError, OSError, RuntimeError) as error:
        raise OSError(
            f"cannot download the weights {weights} of {name} ({error}): set `weights: null` to start at random, or "
            f"download {every[weights].url} and set `weights` to the path of the file"
        ) from error
    return state


def _read(weights: str) -> dict[str, Tensor]:
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # EOFError, RuntimeError, UnpicklingError and others, by what is in the file
        # The text of an UnpicklingError advises to set weights_only=False, which is unsafe and cannot be set here.
        foreign = isinstance(error, pickle.UnpicklingError)
        problem = "it is not a file of torch.save with nothing but tensors in it" if foreign else error
        raise OSError(f"cannot read the weights {weights}: {problem}") from error
    if not isinstance(state, dict):
        raise ValueError(f"`weights` must be a file with a state_dict, and {weights} has a {type(state).__name__}")
    return state


def _load(network: nn.Module, state: Mapping[str, Tensor], name: str, weights: str | None) -> None:
    own = network.state_dict()
    fitting = {
        key: value
        for key, value in state.items()
        if key in own and isinstance(value, Tensor) and own[key].shape == value.shape
    }
    # A head of another size, and auxiliary heads, are left out.
    missing = [key for key in own if key not in fitting]
    if len(missing) > 4:
        raise ValueError(f"`weights` {weights} are not those of {name}: {len(missing)} of {len(own)} tensors differ")
    network.load_state_dict(fitting, strict=False)
