"""Finding the YAML configs that come with the package by name."""

from pathlib import Path


def config_dir() -> Path:
    """Return the folder of the shipped configs: inside the wheel, or at the top of a source checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """Return the names of the shipped configs, sorted."""
    return sorted(path.stem for path in config_dir().glob("*.yaml"))


def resolve_config(config: str) -> str:
    """Return the path of a shipped config if ``config`` is its name, and ``config`` itself otherwise.

    Raises:
        ValueError: if ``config`` looks like a name (no folder, no suffix) and no such config is shipped.

    Example:
        >>> resolve_config("my/own.yaml")
        'my/own.yaml'
    """
    path = Path(config)
    # A config may also be a YAML or JSON string, which may be invalid as a path.
    if not config.replace("_", "").replace("-", "").isalnum() or path.is_file():
        return config
    if config not in config_names():
        raise ValueError(
            f"no config is named {config!r}, and there is no such file; shipped configs: {', '.join(config_names())}"
        )
    return str(config_dir() / f"{config}.yaml")


def with_shipped_configs(arguments: list[str]) -> list[str]:
    """Replace the name of a shipped config after ``--config`` by its path."""
    resolved = []
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        if previous in ("-c", "--config"):
            resolved.append(resolve_config(argument))
        elif argument.startswith("--config="):
            resolved.append("--config=" + resolve_config(argument.removeprefix("--config=")))
        else:
            resolved.append(argument)
    return resolved
