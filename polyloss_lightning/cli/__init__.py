"""The ``polyloss`` command: a LightningCLI with shipped configs and a table of results at the end of a run."""

try:
    from polyloss_lightning.cli.command import main
    from polyloss_lightning.cli.lightning_cli import PolyLossCLI
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] not in ("jsonargparse", "rich"):
        raise
    raise SystemExit(f'polyloss needs {error.name}: pip install "polyloss-lightning[cli]"') from error

__all__ = ["PolyLossCLI", "main"]
