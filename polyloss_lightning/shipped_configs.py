"""The YAML files that come with the package, found by name."""

from pathlib import Path


def config_dir() -> Path:
    """The folder of the shipped configs: inside the wheel, or at the top of a source checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """Names of the shipped configs, sorted."""
    return sorted(path.stem for path in config_dir().glob("*.yaml"))


def resolve_config(config: str) -> str:
    """A path stays what it is; the name of a shipped config becomes its path.

    Raises:
        ValueError: if ``config`` looks like a name (no folder, no suffix) and no such config is shipped.

    Example:
        >>> resolve_config("my/own.yaml")
        'my/own.yaml'
    """
    path = Path(config)
    # A config may also be given as a YAML or JSON string, which no file system would take as a name.
    if not config.replace("_", "").replace("-", "").isalnum() or path.is_file():
        return config
    if config not in config_names():
        raise ValueError(f"no config is named {config!r} and no file lies there; shipped: {', '.join(config_names())}")
    return str(config_dir() / f"{config}.yaml")
