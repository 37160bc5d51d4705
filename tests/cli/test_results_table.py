import csv
import io
import math

import torch
from rich.console import Console

from polyloss_lightning._class_groups import head_middle_tail, many_medium_few
from polyloss_lightning.cli.class_results import ClassResults, split_classes
from polyloss_lightning.cli.results_table import classes_table, metrics_table

METRICS = {
    "val/loss": 0.5,
    "val/poly/term_1": 0.25,
    "val/top_5": 0.75,
    "val/recall_class/0": 1.0,
    "val/recall_class/1": 0.5,
    "val/poly/pt_class/0": 0.75,
    "val/poly/pt_class/1": 0.125,
}


def lines(table, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue().splitlines()


def rows(table, width=80):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines(table, width) if line[:1] == "│"]


def many_classes(number):
    names = ("recall", "pt", "poly/pt", "poly/first_term_share", "poly/first_term_gradient")
    values = {f"val/{name}": {k: (k * 7 % number) / number for k in range(number)} for name in names}
    return ClassResults(values, [f"a long name of class {k}" for k in range(number)], list(range(1, number + 1)))


def test_scalars_and_values_of_classes_are_distinguished_by_name():
    scalars, classes = split_classes(METRICS, {"val/f1": torch.tensor([0.5, 1.0]), "val/matrix": torch.eye(2)})
    assert set(scalars) == {"val/loss", "val/poly/term_1", "val/top_5"}
    assert classes == {
        "val/recall": {0: 1.0, 1: 0.5},
        "val/poly/pt": {0: 0.75, 1: 0.125},
        "val/f1": {0: 0.5, 1: 1.0},
    }


def test_one_row_per_metric():
    scalars, _ = split_classes(METRICS)
    assert rows(metrics_table(scalars, "part")) == [
        ["val/loss", "0.5"],
        ["val/poly/term_1", "0.25"],
        ["val/top_5", "0.75"],
    ]


def test_one_row_per_class_with_its_name_and_training_samples():
    results = ClassResults(split_classes(METRICS)[1], ["cat", "dog"], [40, 2])
    assert rows(classes_table(results, "part")) == [["cat", "40", "1.00", "0.75"], ["dog", "2", "0.50", "0.12"]]


def test_a_class_without_a_name_or_value_has_its_index_and_an_empty_cell():
    results = ClassResults({"a": {0: 1.0, 1: 1.0}, "b": {1: 0.5, 0: math.nan}}, counts=[7])
    assert rows(classes_table(results, "part")) == [["0", "7", "1.00", ""], ["1", "", "1.00", "0.50"]]


def test_names_in_brackets_are_not_markup():
    values = {"val/re[/b]call": {0: 1.0, 1: 0.5}}
    assert [row[0] for row in rows(classes_table(ClassResults(values, ["[red]", "[/b]"]), "test"))] == ["[red]", "[/b]"]
    assert rows(metrics_table({"val/[/i]": 0.5}, "test"))[0] == ["val/[/i]", "0.5"]


def test_of_more_than_20_classes_the_ten_worst_are_shown():
    assert len(rows(classes_table(many_classes(20), "part"), 160)) == 20
    shown = rows(classes_table(many_classes(1000), "part"), 160)
    recall = [float(row[2]) for row in shown]
    assert len(shown) == 10
    assert recall == sorted(recall)
    assert max(recall) <= 0.01
    assert "the 10 worst of 1000 classes by recall" in lines(classes_table(many_classes(1000), "part"), 160)[0]


def test_groups_have_their_number_of_classes_their_samples_and_the_means_of_their_classes():
    counts = [150, 101, 60, 20, 19, 1]
    results = ClassResults({"val/recall": {k: k / 10 for k in range(6)} | {5: math.nan}}, counts=counts)
    expected = [
        ["many (2 classes)", "251", "0.05"],
        ["medium (2 classes)", "80", "0.25"],
        ["few (2 classes)", "20", "0.40"],
    ]
    assert rows(classes_table(results, "part", many_medium_few(counts)))[-3:] == expected
    thirds = rows(classes_table(results, "part", head_middle_tail(counts)))[-3:]
    assert [row[0] for row in thirds] == ["head (2 classes)", "middle (2 classes)", "tail (2 classes)"]


def test_tables_fit_into_80_columns_without_cutting_a_number():
    for number in (10, 1000):
        results = many_classes(number)
        printed = lines(classes_table(results, "part", head_middle_tail(results.counts)))
        assert max(map(len, printed)) <= 80
        assert not [line for line in printed if "…" in line]
        assert [line for line in printed if f"head ({number // 3 + 1} classes)" in line]


def test_the_csv_has_every_class(tmp_path):
    many_classes(1000).write(tmp_path / "new" / "classes.csv")
    with (tmp_path / "new" / "classes.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == 1000
    assert written[3]["class"] == "a long name of class 3"
    assert written[3]["training_samples"] == "4"
    assert float(written[3]["val/recall"]) == 0.021


def test_no_column_is_cut_off_at_80_columns():
    """Rich crops a table whose columns it cannot shrink enough."""
    values = dict.fromkeys(range(10), 0.5)
    metrics = ["val/recall", "val/pt", "val/poly/pt", "val/poly/first_term_share", "val/poly/first_term_gradient"]
    counts = [28, 66, 8, 3, 12, 2, 102, 5, 43, 18]
    results = ClassResults(dict.fromkeys([*metrics, "train/poly/pt"], values), (), counts)
    printed = lines(classes_table(results, "part", head_middle_tail(counts)))
    rows = [line for line in printed if line.startswith("│")]
    assert {line.count("│") for line in rows} == {len(metrics) + 4}
    assert all(line.endswith("│") for line in rows)
    assert max(map(len, printed)) <= 80
