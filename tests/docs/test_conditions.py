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
        ("Monitor", "DDP", "", "test_a"),
        ("Override", "DDP", "", "test_b"),
        ("Override", "DDP", "", "test_b"),
        ("Override", "fullgraph", "it breaks the graph", "test_c"),
    ]
    lines = load("conditions").table(found).splitlines()
    assert lines[:4] == [
        "| condition | Monitor | Override |",
        "|---|---|---|",
        "| DDP | tested | tested |",
        "| fullgraph |  | refused (1) |",
    ]
    assert "1. it breaks the graph" in lines
