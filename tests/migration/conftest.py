import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import polyloss_lightning

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def names():
    """What the calls of the page may use: the public names, and the batch that the page defines."""
    namespace = {name: getattr(polyloss_lightning, name) for name in polyloss_lightning.__all__}
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", PAGE, re.DOTALL)
    exec(code, namespace)
    return namespace


@pytest.fixture(scope="session")
def batch(names):
    """The batch of the page in float64."""
    tensors = {name: value for name, value in names.items() if isinstance(value, torch.Tensor)}
    return SimpleNamespace(
        **{name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}
    )


@pytest.fixture(scope="session")
def rows():
    """Returns the rows of a section's table: the old call, then the new call and both numbers."""

    def of_section(heading):
        (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
        cells = re.findall(r"^\| `(.*?)` \| `(.*?)` \| ([\d.]+) \| ([\d.]+) \|", section, re.MULTILINE)
        return {old: (new, float(before), float(after)) for old, new, before, after in cells}

    return of_section


@pytest.fixture(scope="session")
def check_page(rows, batch, names):
    """Checks the table of a section against a formula for each old call, and runs each new call."""

    def check(heading, formulas):
        table = rows(heading)
        assert set(table) == set(formulas)
        for old, (new, before, after) in table.items():
            assert formulas[old](batch).mean().item() == pytest.approx(before, abs=6e-4), old
            assert eval(new, dict(names)).mean().item() == pytest.approx(after, abs=6e-4), new

    return check
