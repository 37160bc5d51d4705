"""Training of a config by ``polyloss fit`` in processes of their own, for a Trainer that uses several processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from polyloss_lightning.search.config import Config, with_run_metrics
from polyloss_lightning.search.fit import Fitted


class FitCommand(NamedTuple):
    """A config to be trained in other processes.

    Attributes:
        config: the resolved config.
        folder: for its files.
        can_test: whether there is a test part.
    """

    config: Config
    folder: Path
    can_test: bool

    def run(self, *, test: bool) -> Fitted:
        """Train, and also test if requested and possible."""
        path = self.folder / "metrics.json"
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump(with_run_metrics(self.config, path), sort_keys=False), encoding="utf-8")
        written = self._polyloss("fit", config, path)
        metrics, history, counts = written["metrics"], written["history"], written["class_counts"]
        if test and self.can_test:
            best = ["--ckpt_path", written["checkpoint"]] if written["checkpoint"] else []
            if not best:
                raise ValueError("the test part needs a ModelCheckpoint if the Trainer uses several processes")
            metrics = metrics | self._polyloss("test", config, path, *best)["metrics"]
        return Fitted(metrics, history, counts)

    def _polyloss(self, subcommand: str, config: Path, result: Path, *arguments: str) -> dict[str, Any]:
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", "polyloss_lightning", subcommand, "--config", str(config), *arguments]
        _run(command)
        written: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return written


def _run(command: list[str]) -> None:
    """Run ``command`` in a group of its own, so that all of its processes end if this one is interrupted."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        _kill(process)
        raise
    if code:
        raise subprocess.CalledProcessError(code, command)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:  # Windows has no groups
        process.kill()
    process.wait()
