import io

from rich.console import Console

from polyloss_lightning.results_table import only_classes, results_table

METRICS = {
    "val/loss": 0.5,
    "val/poly/term_1": 0.25,
    "val/recall_class/0": 1.0,
    "val/recall_class/1": 0.5,
    "val/poly/pt_class/0": 0.75,
    "val/poly/pt_class/1": 0.125,
}


def rows(metrics, **options):
    console = Console(file=io.StringIO(), width=160)
    console.print(results_table(metrics, "part", **options))
    return [line for line in console.file.getvalue().splitlines() if line.startswith("│")]


def cells(line):
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_one_row_a_metric_and_one_column_a_class():
    assert [cells(line) for line in rows(METRICS, class_counts=[40, 2])] == [
        ["val/loss", "0.5"],
        ["val/poly/term_1", "0.25"],
        ["training samples", "40", "2"],
        ["val/recall", "1.00", "0.50"],
        ["val/poly/pt", "0.75", "0.12"],
    ]


def test_a_class_without_a_value_has_an_empty_cell():
    metrics = {"a_class/0": 1.0, "a_class/1": 1.0, "b_class/1": 0.5}
    expected = [["training samples", "7", ""], ["a", "1.00", "1.00"], ["b", "", "0.50"]]
    assert [cells(line) for line in rows(metrics, class_counts=[7])] == expected


def test_a_number_at_the_end_of_a_name_is_no_class():
    assert [cells(line) for line in rows({"val/top_5": 0.5}, class_counts=[7])] == [["val/top_5", "0.5"]]


def test_without_classes_there_is_one_table():
    assert len(rows({"val/loss": 1.0})) == 1


def test_only_classes_leaves_terms_out():
    assert set(only_classes(METRICS, "val/poly")) == {"val/poly/pt_class/0", "val/poly/pt_class/1"}
    assert only_classes(METRICS, "train/") == {}
