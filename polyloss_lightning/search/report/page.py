"""Writes the page and the table of a search."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from polyloss_lightning.search.extra import require
from polyloss_lightning.search.progress import duration
from polyloss_lightning.search.report.data import Report, read_report
from polyloss_lightning.search.report.figures import difference_figure, settings_figure
from polyloss_lightning.search.report.svg import as_svg
from polyloss_lightning.search.report.training_figures import training_figures
from polyloss_lightning.search.storage import Location, quiet
from polyloss_lightning.search.table import cells


def write_report(location: Location) -> tuple[Path, Path]:
    """Write ``report.html``, which needs no other file and no network, and ``runs.csv`` into the folder of a search.

    Args:
        location: where the study is.

    Returns:
        The paths of both files.

    Raises:
        FileNotFoundError: if there is no study.
        ModuleNotFoundError: if the extra ``search`` is not installed.
    """
    require("jinja2")
    require("matplotlib")
    with quiet():
        report = read_report(location.open())
    location.folder.mkdir(parents=True, exist_ok=True)
    page, table = location.folder / "report.html", location.folder / "runs.csv"
    page.write_text(_page(report), encoding="utf-8")
    _write_csv(report, table)
    return page, table


def _page(report: Report) -> str:
    jinja2 = require("jinja2")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((Path(__file__).parent / "page.html.jinja").read_text(encoding="utf-8"))
    drawn = [settings_figure(report), difference_figure(report), *training_figures(report)]
    figures = [
        {"title": item.title, "caption": item.caption, "svg": as_svg(item.figure, item.name, item.text)}
        for item in drawn
        if item is not None
    ]
    header, rows = cells(report.answer)
    page: str = template.render(
        report=report,
        answer=report.answer,
        figures=figures,
        header=header,
        rows=rows,
        runs=[_run_cells(report, index) for index in range(len(report.runs))],
    )
    return page


def _run_cells(report: Report, index: int) -> dict[str, Any]:
    run = report.runs[index]
    return {
        "setting": run.pair.setting,
        "phase": run.pair.phase,
        "seed": run.pair.seed,
        "value": "" if run.value is None else f"{run.value:.5g}",
        "metric": run.outcome.get("metric", ""),
        "time": duration(run.outcome["seconds"]) if run.outcome else "",
        "error": run.error,
    }


def _write_csv(report: Report, path: Path) -> None:
    metrics = sorted({name for run in report.runs for name in run.outcome.get("metrics", {})})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "phase", "seed", "metric", "value", "seconds", "error", *metrics])
        for run in report.runs:
            outcome = run.outcome
            measured = outcome.get("metrics", {})
            writer.writerow(
                [
                    run.pair.setting,
                    run.pair.phase,
                    run.pair.seed,
                    outcome.get("metric", ""),
                    "" if run.value is None else run.value,
                    outcome.get("seconds", ""),
                    run.error,
                    *(measured.get(name, "") for name in metrics),
                ]
            )
