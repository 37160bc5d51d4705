"""Output of a benchmark goes between its markers in benchmarks/README.md, and nothing else of the page changes."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PAGE = "# Page\n\n<!-- one: begin -->\nold\n<!-- one: end -->\n\ntext\n\n<!-- two: begin -->\n<!-- two: end -->\n"


@pytest.fixture(scope="module")
def writer(load):
    return load("write_readme")


def test_replaces_what_is_between_the_markers_only(writer):
    page = writer.replaced(PAGE, "one", "new")
    assert page == PAGE.replace("\nold\n", "\n\nnew\n\n")
    assert writer.replaced(page, "one", "new") == page


@pytest.mark.parametrize("name", ["three", "o"])
def test_a_page_without_the_markers_is_an_error(writer, name):
    with pytest.raises(ValueError, match=f"must contain <!-- {name}: begin -->"):
        writer.replaced(PAGE, name, "new")


def test_tables_stay_tables_and_other_output_becomes_code(writer):
    assert writer.as_markdown("\n## Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n").startswith("### Title\n\n| a | b |")
    assert writer.as_markdown("step   1.5 ms\n") == "```text\nstep   1.5 ms\n```"


def test_runs_a_benchmark_with_its_arguments(writer, monkeypatch, tmp_path):
    (tmp_path / "one.py").write_text("import sys; print('|a|', '|-|', f'|{sys.argv[1]}|', sep='\\n')")
    (tmp_path / "README.md").write_text(PAGE)
    monkeypatch.setattr(writer, "HERE", tmp_path)
    monkeypatch.setattr(writer, "README", tmp_path / "README.md")
    writer.main(["one", "--quick"])
    assert "`python benchmarks/one.py --quick`:\n\n|a|\n|-|\n|--quick|\n\n<!--" in (tmp_path / "README.md").read_text()


def test_every_benchmark_has_its_place_on_the_page(writer):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    helpers = {"cases", "measure", "write_readme"}
    for script in FOLDER.glob("*.py"):
        if script.stem not in helpers:
            writer.replaced(page, script.stem, "")
