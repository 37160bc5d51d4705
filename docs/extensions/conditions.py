"""Writes the table of conditions from the marks of the tests: ``@pytest.mark.condition(parts, name, refused=None)``."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx  # the tests read this file without Sphinx

ROOT = Path(__file__).parents[2]


def write_table(app: Sphinx) -> None:
    """Collect the marks, and write ``generated/conditions.md``."""
    command = [sys.executable, "-m", "pytest", "tests", "-m", "", "--collect-only", "-q", "--conditions"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"collecting the tests failed:\n{done.stdout}\n{done.stderr}")
    found = [line.split("\t") for line in done.stdout.splitlines() if re.match(r"condition\t", line)]
    file = Path(app.srcdir) / "generated" / "conditions.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(table([(part, name, refused, how) for _, part, name, refused, how, _ in found]), encoding="utf-8")


def table(found: list[tuple[str, str, str, str]]) -> str:
    """Return a Markdown table with one row per condition, one column per part, and the reasons of refusals below.

    Args:
        found: part, condition, reason of the refusal ("" if the condition is supported), and "tested" or "read".
    """
    parts = sorted({part for part, _, _, _ in found})
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    reasons: list[str] = []
    for part, name, refused, how in found:
        if refused and refused not in reasons:
            reasons.append(refused)
        cells[name][part] = f"refused ({reasons.index(refused) + 1})" if refused else cells[name].get(part, how)
    lines = [f"| condition | {' | '.join(parts)} |", f"|---|{'---|' * len(parts)}"]
    lines += [
        f"| {name} | {' | '.join(row.get(part, '') for part in parts)} |"
        for name, row in sorted(cells.items(), key=lambda item: item[0].lower())
    ]
    lines += ["", *(f"{number}. {reason}" for number, reason in enumerate(reasons, start=1))]
    return "\n".join([*lines, ""])


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the table when the build begins."""
    app.connect("builder-inited", write_table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
