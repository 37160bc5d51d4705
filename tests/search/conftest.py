import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def folder():
    """A folder in memory if possible, because a database on a busy disk waits for every write."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)
