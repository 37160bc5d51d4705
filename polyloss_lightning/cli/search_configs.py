"""What ``polyloss search`` needs of LightningCLI: it resolves configs, and builds module, data and Trainer."""

import atexit
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything

from polyloss_lightning._shipped_configs import with_shipped_configs
from polyloss_lightning.cli.lightning_cli import PolyLossCLI
from polyloss_lightning.search.config import (
    Config,
    class_of,
    for_search,
    scales_learning_rate,
    starts_processes,
    with_seed,
)
from polyloss_lightning.search.fit import Fit
from polyloss_lightning.search.fit_command import FitCommand
from polyloss_lightning.search.learning_rate import UnscalableSchedulerError
from polyloss_lightning.search.worker import output_in

_FIT_ONLY = ("ckpt_path", "weights_only")


class _ParsedError(Exception):
    """Leaves the constructor of a LightningCLI, which would go on to train."""


class _FitParser(PolyLossCLI):
    """Parses the arguments of ``polyloss fit``, and does nothing else."""

    resolved: Config

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only ``fit``; a parser for each of the others would cost time."""
        return {"fit": PolyLossCLI.subcommands()["fit"]}

    def before_instantiate_classes(self) -> None:
        """Keep the config, and stop."""
        text = self.parser.dump(self.config, skip_link_targets=False, skip_none=False, format="yaml")
        raise _ParsedError(yaml.safe_load(text)["fit"])


def resolve(arguments: Sequence[str]) -> Config:
    """Return the complete config that ``polyloss fit ARGUMENTS`` would use.

    Raises:
        SystemExit: if an argument is wrong.
        ValueError: if the run would start from a checkpoint.
    """
    before = sys.argv
    seed_log = logging.getLogger("lightning.fabric.utilities.seed")
    seed_log.disabled = True  # it reports a seed for each config, although nothing is trained
    # A config without a seed would lead to a warning, although every run gets a seed of its own.
    sys.argv = [*before[:1], "fit", "--seed_everything=0", *with_shipped_configs(list(arguments))]
    try:
        _FitParser()
    except _ParsedError as parsed:
        config: Config = parsed.args[0]
    finally:
        sys.argv = before
        seed_log.disabled = False
    if config.get("ckpt_path") is not None:
        raise ValueError(f"a search starts every run anew: remove `ckpt_path`, got {config['ckpt_path']!r}")
    for name in _FIT_ONLY:
        config.pop(name, None)
    return config


@dataclass
class ConfigObjective:
    """Objective of a search whose settings are resolved configs.

    Args:
        folder: for the checkpoints, which are removed after a run.
        seed_keys: paths in the config that get the seed, beside ``seed_everything``.
    """

    folder: Path
    seed_keys: Sequence[str]
    _cli: PolyLossCLI | None = field(default=None, repr=False)
    _scratch: Path | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a process."""
        return {**self.__dict__, "_cli": None, "_scratch": None}

    def __call__(self, config: Config, seed: int) -> Fit | FitCommand:
        """Build module, data and Trainer of a config."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self._fresh_scratch()
        config = for_search(with_seed(config, seed, list(self.seed_keys)), folder)
        if starts_processes(config):
            return FitCommand(config, folder, _can_test(config))
        if self._cli is None:
            self._cli = PolyLossCLI(run=False, save_config_callback=None, args=config)
        else:  # a new parser for every run would take longer than some runs
            cli = self._cli
            cli.config = cli.parser.parse_object(config)
            seed_everything(seed, workers=True)
            cli.before_instantiate_classes()
            cli.instantiate_classes()
        return Fit(self._cli.model, self._cli.datamodule, self._cli.trainer)

    def _fresh_scratch(self) -> Path:
        """Remove the folder of the previous run, and return a new one, which is removed when the process ends."""
        if self._scratch is None:
            atexit.register(lambda: shutil.rmtree(str(self._scratch), ignore_errors=True))
        else:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix="scratch-"))
        return self._scratch


def check_learning_rates(configs: Sequence[Config]) -> None:
    """Raise if one of several similar configs multiplies learning rates, and this is not possible.

    Which schedulers a module uses is known only once it is trained. So the first of these configs is built on the CPU,
    and its training is stopped before the first step.

    Raises:
        UnscalableSchedulerError: if a scheduler is not one of torch's.
    """
    config = next(filter(scales_learning_rate, configs), None)
    if config is None or starts_processes(config):  # with several processes it is probably too large to be built here
        return
    trainer = {**config["trainer"], "accelerator": "cpu", "devices": 1, "strategy": "auto", "precision": None}
    with tempfile.TemporaryDirectory() as name, output_in(Path(name) / "output"):
        try:
            fit = ConfigObjective(Path(name), ())({**config, "trainer": trainer}, 0)
            assert isinstance(fit, Fit)
            fit.trainer.callbacks.append(_StopBeforeTraining())  # type: ignore[attr-defined]
            fit.trainer.fit(fit.module, fit.data)
        except UnscalableSchedulerError:
            raise
        except Exception:  # the runs report their errors themselves
            return


class _StopBeforeTraining(Callback):
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise _StoppedError


class _StoppedError(Exception):
    pass


def _can_test(config: Config) -> bool:
    module = class_of(config["model"])
    data = class_of(config["data"]) if config.get("data") else None
    has_part = (
        _overrides(module, LightningModule, "test_dataloader")
        if data is None
        else (_overrides(data, LightningDataModule, "test_dataloader"))
    )
    return has_part and _overrides(module, LightningModule, "test_step")


def _overrides(cls: type, base: type, method: str) -> bool:
    return getattr(cls, method, None) is not getattr(base, method)
