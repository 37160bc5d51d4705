"""Runs the ``polyloss`` command with ``python -m polyloss_lightning``."""

from polyloss_lightning.cli import main

if __name__ == "__main__":
    main()
