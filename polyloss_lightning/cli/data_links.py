"""Passing the number of classes and channels of the data on to the model and its network."""

import inspect
import pydoc
from collections.abc import Callable
from typing import Any

import lightning.pytorch.cli
import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_warn

from polyloss_lightning import _files

# Attribute of the data module, path of the arguments that get its value.
_LINKS = (
    ("num_classes", ("num_classes",)),
    ("num_classes", ("network", "num_classes")),
    ("in_channels", ("network", "in_channels")),
)

_FOUND_BY_LIGHTNING = ("best", "last", "hpc", "registry")  # values of `ckpt_path` that are not the path of a file


def link_data(parser: LightningArgumentParser) -> None:
    """Take the arguments of the model and of its network from the data module, if both sides have them."""
    for attribute, path in _LINKS:
        target = ".init_args.".join(("model", *path))
        parser.link_arguments(f"data.{attribute}", target, apply_on="instantiate")


def linked_instantiator(cli: LightningCLI) -> Callable[..., Any] | None:
    """Return what builds the model with the hyperparameters of its config, among them the values taken from the data.

    Lightning adds the value of every link to the hyperparameters, even if the class has no such argument. Then the
    model does not start, or cannot be loaded from its checkpoint. A Lightning without its private class for this
    builds the model in its own way, and the result is None.
    """
    make = getattr(lightning.pytorch.cli, "_InstantiatorFn", None)
    build: Any = None if make is None else make(cli=cli, key="model")

    def instantiate(class_type: type[Any], *args: Any, applied_instantiation_links: Any, **kwargs: Any) -> Any:
        config = cli.config.get(str(cli.subcommand), cli.config).get("model") or {}  # a class may have no arguments
        links = {
            target: value
            for target, value in applied_instantiation_links.items()
            if target.removeprefix("model.") in config
        }
        return build(class_type, *args, applied_instantiation_links=links, **kwargs)

    return None if build is None else instantiate


def check_links(model: Namespace | None, datamodule: Any, ckpt_path: str | None = None) -> None:
    """Compare the arguments of the model in the config, or in the checkpoint, with the data.

    Raises:
        ValueError: if an argument was given and differs, with both numbers.
    """
    for attribute, path in _LINKS:
        class_path, value = _configured(model, path)
        actual = getattr(datamodule, attribute, None)
        if class_path is None or value is None or actual is None or value == actual:
            continue
        default = inspect.signature(pydoc.locate(class_path)).parameters.get(path[-1])  # type: ignore[arg-type]
        if default is None or value != default.default:
            advice = "leave the argument out, and it is taken from the data"
            raise ValueError(
                f"`{'.'.join(('model', *path))}` is {value}, but {type(datamodule).__name__} has {attribute}={actual}: "
                + (f"the checkpoint {ckpt_path} is that of a model for other data" if ckpt_path else advice)
            )


def take_from_checkpoint(
    data: Namespace | None, ckpt_path: str | None, *, weights_only: bool | None, predicting: bool
) -> None:
    """Take what the model and the data have to be built with from the checkpoint.

    This is ``grayscale``, from which follows the number of channels of the model, and, to predict new images without
    the training data, ``class_names``.

    Raises:
        FileNotFoundError: if there is no such checkpoint, and the names of the classes are needed.
    """
    arguments = _arguments(data)
    training_data = arguments.get("train" if "train" in arguments else "root")
    unnamed = "class_names" in arguments and arguments["class_names"] is None and training_data is None
    if data is None or not ckpt_path or not ("grayscale" in arguments or (unnamed and predicting)):
        return
    if ckpt_path.partition(":")[0] in _FOUND_BY_LIGHTNING:
        return
    if not _files.exists(ckpt_path):
        if unnamed and predicting:  # otherwise Lightning reports it
            raise FileNotFoundError(f"there is no checkpoint {ckpt_path}")
        return
    with _files.local_copy(ckpt_path) as file:
        checkpoint = torch.load(file, map_location="cpu", weights_only=weights_only)
    state = checkpoint.get(data.class_path.rpartition(".")[2], {})
    if unnamed and predicting:
        arguments["class_names"] = state.get("class_names")
    saved = state.get("grayscale", arguments.get("grayscale"))
    if saved != arguments.get("grayscale"):
        rank_zero_warn(f"`grayscale` is {saved} as in the checkpoint, and not {arguments['grayscale']}")
        arguments["grayscale"] = saved


def _configured(model: Namespace | None, path: tuple[str, ...]) -> tuple[str | None, Any]:
    """Return the class path and the value of an argument in the config of the model, None if it is not there."""
    config: Any = model
    for name in path[:-1]:
        config = _arguments(config).get(name)
    return getattr(config, "class_path", None), _arguments(config).get(path[-1])


def _arguments(config: Any) -> Any:
    return getattr(config, "init_args", None) or {}
