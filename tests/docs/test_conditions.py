"""The table of conditions has a row per condition, and the reason of each refusal."""

import importlib.util
from pathlib import Path


def load(name):
    path = Path(__file__).parents[2] / "docs" / "extensions" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_row_per_condition_a_column_per_part_and_a_reason_per_refusal():
    found = [
        ("Monitor", "DDP", "", "tested"),
        ("Override", "DDP", "", "tested"),
        ("Override", "DDP", "", "tested"),
        ("Monitor", "DeepSpeed", "", "read"),
        ("Override", "fullgraph", "it breaks the graph", "tested"),
    ]
    lines = load("conditions").table(found).splitlines()
    assert lines[:5] == [
        "| condition | Monitor | Override |",
        "|---|---|---|",
        "| DDP | tested | tested |",
        "| DeepSpeed | read |  |",
        "| fullgraph |  | refused (1) |",
    ]
    assert "1. it breaks the graph" in lines
