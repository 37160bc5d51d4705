"""Writes the setting that was picked as a config."""

from pathlib import Path

import yaml

from polyloss_lightning.search.config import Config


def write_pick(folder: Path, config: Config) -> Path:
    """Write ``config`` as a YAML file that ``polyloss fit --config`` takes, and return its path."""
    path = folder / "pick.yaml"
    header = "# The setting that polyloss search picked: polyloss fit --config THIS_FILE\n"
    path.write_text(header + yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path
