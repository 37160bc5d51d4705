"""``python -m polyloss_lightning`` is the ``polyloss`` command."""

from polyloss_lightning.cli import main

if __name__ == "__main__":
    main()
