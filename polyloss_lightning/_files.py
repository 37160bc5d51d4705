"""Small files at local paths and at URLs such as ``s3://bucket/run``, by way of fsspec, as in Lightning."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

PathLike: TypeAlias = str | os.PathLike[str]


def join(folder: PathLike, *names: str) -> str:
    """Return the path of a file in ``folder``.

    ``pathlib.Path`` would turn the ``//`` of a URL into ``/``.

    Example:
        >>> join("memory://runs/", "figures", "terms.png")
        'memory://runs/figures/terms.png'
    """
    return os.path.join(os.fspath(folder), *names)


def is_local(path: PathLike) -> bool:
    """Return whether ``path`` is on a file system of this machine."""
    return isinstance(_locate(path)[0], LocalFileSystem)


def is_dir(path: PathLike) -> bool:
    """Return whether ``path`` is an existing folder."""
    system, place = _locate(path)
    return bool(system.isdir(place))


def exists(path: PathLike) -> bool:
    """Return whether there is a file or folder at ``path``."""
    system, place = _locate(path)
    return bool(system.exists(place))


def read(path: PathLike) -> bytes:
    """Return the contents of a file.

    Raises:
        FileNotFoundError: if there is none.
    """
    system, place = _locate(path)
    return bytes(system.cat_file(place))


def write(path: PathLike, data: bytes) -> None:
    """Write a file as a whole: readers see the old contents or the new ones, and after an error the old ones stay."""
    system, place = _locate(path)
    system.makedirs(system._parent(place), exist_ok=True)
    if not isinstance(system, LocalFileSystem):
        system.pipe_file(place, data)  # object stores replace a file at the end of its upload
        return
    scratch = f"{place}.{os.getpid()}.tmp"
    try:
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or the new name may reach the disk before the contents
        os.replace(scratch, place)
    except OSError:
        with suppress(OSError):
            os.remove(scratch)
        raise


def append(path: PathLike, data: bytes) -> None:
    """Add ``data`` at the end of a file.

    Raises:
        FileNotFoundError: if the file does not exist.
    """
    system, place = _locate(path)
    if isinstance(system, LocalFileSystem):
        # "ab" alone would create the file.
        with open(place, "ab", opener=lambda name, flags: os.open(name, flags & ~os.O_CREAT)) as file:
            file.write(data)
    else:
        system.pipe_file(place, bytes(system.cat_file(place)) + data)  # object stores cannot append


def copy(source: PathLike, target: PathLike) -> None:
    """Copy a file."""
    write(target, read(source))


@contextmanager
def local_copy(path: PathLike) -> Iterator[str]:
    """Give a local path for ``path``: itself, or a temporary copy of a remote file."""
    if is_local(path):
        yield os.fspath(path)
        return
    with TemporaryDirectory() as folder:
        target = Path(folder, os.fspath(path).rsplit("/", 1)[-1])
        target.write_bytes(read(path))
        yield str(target)


def _locate(path: PathLike) -> tuple[Any, str]:
    text = os.fspath(path)
    if "::" in text and "://" not in text:
        # In a local path, fsspec would take "::" for a chain of file systems, and cut off what follows.
        return LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
    system, place = url_to_fs(text)
    return system, str(place)
