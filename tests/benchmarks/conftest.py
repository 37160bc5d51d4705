import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def load():
    """Imports a benchmark, which is a script and no part of the package, and which may import its siblings."""

    def module_of(name):
        if str(FOLDER) not in sys.path:
            sys.path.append(str(FOLDER))
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return module_of
