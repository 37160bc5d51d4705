"""Edits of a resolved LightningCLI config: another epsilon, another seed, a run without side effects."""

import copy
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary, ProgressBar

from polyloss_lightning.callbacks import EpsilonScheduler, PolyLossOverride, PolynomialTermMonitor
from polyloss_lightning.losses import (
    Poly1BCEWithLogitsLoss,
    Poly1CrossEntropyLoss,
    Poly1FocalLoss,
    Poly1SigmoidFocalLoss,
    PolyLoss,
)
from polyloss_lightning.provider import LossProvider
from polyloss_lightning.search.learning_rate import ScaleLearningRate

Config: TypeAlias = dict[str, Any]

_BASE_LOSSES = {
    Poly1CrossEntropyLoss: "cross-entropy",
    Poly1BCEWithLogitsLoss: "binary cross-entropy",
    Poly1FocalLoss: "focal loss",
    Poly1SigmoidFocalLoss: "sigmoid focal loss",
}
_SUBPROCESS_STRATEGIES = ("ddp", "fsdp", "deepspeed", "model_parallel", "xla")


def with_epsilon(config: Config, epsilon: float | tuple[float, float]) -> Config:
    """Return a config that trains with ``epsilon``.

    Every loss of this package and every PolyLossOverride in the config gets it. A config that has neither gets a
    PolyLossOverride, and a module with the mixin LossProvider that has no loss gets Poly-1 cross-entropy.

    Args:
        config: a resolved config; it is not changed.
        epsilon: a constant, which takes every EpsilonScheduler out, or the first and last value of a linear schedule.
    """
    edited = copy.deepcopy(config)
    start = epsilon if isinstance(epsilon, int | float) else epsilon[0]
    model = edited["model"]
    if issubclass(class_of(model), LossProvider) and model.get("init_args", {}).get("loss_fn", model) is None:
        model["init_args"]["loss_fn"] = {"class_path": _path(Poly1CrossEntropyLoss), "init_args": {}}
    callbacks = _callbacks(edited)
    if not uses_polyloss(edited):
        callbacks.append({"class_path": _path(PolyLossOverride), "init_args": {}})
    for node in _nodes(edited, PolyLoss, PolyLossOverride):
        node.setdefault("init_args", {})["epsilon"] = float(start)
    _remove(callbacks, EpsilonScheduler)
    if not isinstance(epsilon, int | float):
        schedule = {
            "class_path": "polyloss_lightning.schedules.LinearSchedule",
            "init_args": {"init_value": float(epsilon[0]), "end_value": float(epsilon[1])},
        }
        callbacks.append({"class_path": _path(EpsilonScheduler), "init_args": {"schedule": schedule}})
    return edited


def with_learning_rate(config: Config, factor: float) -> Config:
    """Return a config that multiplies every learning rate by ``factor``."""
    edited = copy.deepcopy(config)
    path = f"{ScaleLearningRate.__module__}.{ScaleLearningRate.__name__}"
    _callbacks(edited).append({"class_path": path, "init_args": {"factor": float(factor)}})
    return edited


def scales_learning_rate(config: Config) -> bool:
    """Return whether a config multiplies its learning rates."""
    return any(True for _ in _nodes(config["trainer"], ScaleLearningRate))


def without_idle_callbacks(config: Config) -> Config:
    """Return a config without the callbacks that need a loss of this package, if it has no such loss."""
    if uses_polyloss(config):
        return config
    edited = copy.deepcopy(config)
    _remove(_callbacks(edited), EpsilonScheduler, PolynomialTermMonitor)
    return edited


def with_seed(config: Config, seed: int, keys: list[str]) -> Config:
    """Return a config with ``seed`` as ``seed_everything`` and under ``keys`` (paths with dots)."""
    edited = copy.deepcopy(config)
    edited["seed_everything"] = seed
    for key in keys:
        *parents, last = key.split(".")
        node = edited
        for parent in parents:
            node = node[parent]
        node[last] = seed
    return edited


def seed_keys(config: Config, seed_key: str | None) -> list[str]:
    """Return the paths of the seeds of the data in a config.

    Args:
        config: a resolved config.
        seed_key: a path with dots, such as ``data.init_args.split_seed``; None finds an argument ``seed`` of the data
            module.

    Raises:
        ValueError: if the config has no ``seed_key``.
    """
    if seed_key is not None:
        node: Any = config
        for part in seed_key.split("."):
            if not isinstance(node, dict) or part not in node:
                raise ValueError(f"`seed_key` must be a path in the config, and {seed_key!r} is not: no {part!r}")
            node = node[part]
        return [seed_key]
    arguments = (config.get("data") or {}).get("init_args") or {}
    return ["data.init_args.seed"] if "seed" in arguments else []


def for_search(config: Config, folder: Path) -> Config:
    """Return a config that trains as ``config`` does, but prints and draws nothing, and writes into ``folder``.

    A config with a loss of this package and without a PolynomialTermMonitor gets one, for the report.
    """
    edited = copy.deepcopy(config)
    trainer, callbacks = edited["trainer"], _callbacks(edited)
    trainer["default_root_dir"] = str(folder)
    trainer["enable_progress_bar"] = trainer["enable_model_summary"] = False
    # With no logger, modules that use `self.logger` would fail.
    trainer["logger"] = {"class_path": "lightning.pytorch.loggers.logger.DummyLogger"}
    _remove(callbacks, ProgressBar, ModelSummary)
    if uses_polyloss(edited) and not any(True for _ in _nodes(callbacks, PolynomialTermMonitor)):
        # An override replaces the losses of training only, so nothing can be observed in validation.
        stages = ["train", "val"] if any(True for _ in _nodes(edited["model"], PolyLoss)) else ["train"]
        callbacks.append({"class_path": _path(PolynomialTermMonitor), "init_args": {"stages": stages}})
    for monitor in _nodes(callbacks, PolynomialTermMonitor):
        monitor.setdefault("init_args", {}).update(record=False, figures=False)
    checkpoints = list(_nodes(callbacks, ModelCheckpoint))
    trainer["enable_checkpointing"] = bool(checkpoints) and trainer.get("enable_checkpointing") is not False
    for index, checkpoint in enumerate(checkpoints):
        checkpoint.setdefault("init_args", {})["dirpath"] = str(folder / f"checkpoints_{index}")
    return edited


def with_run_metrics(config: Config, path: Path) -> Config:
    """Return a config whose metrics are written to ``path`` at the end of the run."""
    edited = copy.deepcopy(config)
    edited["trainer"]["logger"] = False  # `polyloss fit` saves the config in the folder of the logs, which must exist
    node = {"class_path": "polyloss_lightning.callbacks.run_metrics.RunMetrics", "init_args": {"path": str(path)}}
    _callbacks(edited).append(node)
    return edited


def checkpoint_monitor(config: Config) -> tuple[str, str] | None:
    """Return monitor and mode of the first ModelCheckpoint that monitors a metric."""
    for node in _nodes(_callbacks(config), ModelCheckpoint):
        arguments = node.get("init_args") or {}
        if arguments.get("monitor"):
            return str(arguments["monitor"]), str(arguments.get("mode", "min"))
    return None


def uses_polyloss(config: Config) -> bool:
    """Return whether a config has a loss of this package or a PolyLossOverride."""
    return any(True for _ in _nodes(config, PolyLoss, PolyLossOverride))


def has_scheduler(config: Config) -> bool:
    """Return whether a config moves epsilon."""
    return any(True for _ in _nodes(config, EpsilonScheduler))


def base_loss_name(config: Config) -> str:
    """Return what the loss of a config is called at epsilon 0."""
    for node in _nodes(config, PolyLoss):
        loss = class_of(node)
        if loss is Poly1FocalLoss and (node.get("init_args") or {}).get("gamma") == 0:
            return "cross-entropy"
        return _BASE_LOSSES.get(loss, f"{loss.__name__} at epsilon 0")
    return "the module's own loss"


def starts_processes(config: Config) -> bool:
    """Return whether the Trainer of a config uses several processes."""
    trainer = config["trainer"]
    strategy = trainer.get("strategy")
    name = strategy.get("class_path", "") if isinstance(strategy, dict) else str(strategy)
    devices = trainer.get("devices")
    several = len(devices) > 1 if isinstance(devices, list) else str(devices) not in ("1", "auto", "None", "-1")
    return several or trainer.get("num_nodes", 1) > 1 or any(part in name.lower() for part in _SUBPROCESS_STRATEGIES)


def devices_per_run(config: Config) -> int | None:
    """Return how many devices a run uses; None if the config names them or takes all there are."""
    devices = config["trainer"].get("devices")
    if str(devices).isdecimal() and int(devices) > 0:
        return int(devices)
    return 1 if str(devices) in ("auto", "None", "-1") and not starts_processes(config) else None


def class_of(node: Config) -> type:
    """Return the class that ``class_path`` names; ``object`` if it names something else, such as a function."""
    module, _, name = node["class_path"].rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (AttributeError, ImportError, ValueError):
        return object
    return found if inspect.isclass(found) else object


def _nodes(value: Any, *classes: type) -> Iterator[Config]:
    """Yield all parts of a config that configure one of ``classes``."""
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str) and issubclass(class_of(value), classes):
            yield value
        for entry in value.values():
            yield from _nodes(entry, *classes)
    elif isinstance(value, list):
        for entry in value:
            yield from _nodes(entry, *classes)


def _callbacks(config: Config) -> list[Config]:
    """Return the list of callbacks of a config, which may be changed."""
    trainer = config["trainer"]
    callbacks = trainer.get("callbacks") or []
    trainer["callbacks"] = callbacks if isinstance(callbacks, list) else [callbacks]
    result: list[Config] = trainer["callbacks"]
    return result


def _remove(callbacks: list[Config], *classes: type) -> None:
    callbacks[:] = [node for node in callbacks if not issubclass(class_of(node), classes)]


def _path(cls: type) -> str:
    # The public path: without the module in which the class is written.
    package = cls.__module__.rpartition(".")[0]
    return f"{package}.{cls.__name__}"
