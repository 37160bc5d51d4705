"""Finding the folder in which a run writes its files."""

import lightning.pytorch as pl

from polyloss_lightning import _files


def log_dir(trainer: pl.Trainer) -> str:
    """Return the folder or URL of the logs of this run, ``default_root_dir`` if there is no logger.

    ``Trainer.log_dir`` is not used: it waits for all processes, but often only the first one writes, and for most
    loggers it is a folder that several runs share.
    """
    logger = trainer.logger
    if logger is None:
        return str(trainer.default_root_dir)
    folder = getattr(logger, "log_dir", None)  # only loggers with a folder for each run have one
    if folder is not None:
        return str(folder)
    # Otherwise the folder in which Lightning saves checkpoints.
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    parent = trainer.default_root_dir if logger.save_dir is None else logger.save_dir
    return _files.join(parent, str(logger.name), version)
