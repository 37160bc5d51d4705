"""The answer of a search as text."""

import math

from polyloss_lightning.search.answer import Answer, Row


def cells(answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table of an answer."""
    groups = list(dict.fromkeys(name for row in answer.rows for name in row.recalls))
    percent = " (%)" if answer.unit.percent else ""
    header = ["setting", "phase", f"mean{percent}", "sd", "seeds", "gain of the pick", *(f"{g} recall" for g in groups)]
    rows = [[*_fixed_cells(answer, row), *(_recall(row, group) for group in groups)] for row in answer.rows]
    errors = [row.calibration_error for row in answer.rows]
    if not all(map(math.isnan, errors)):
        header.append("calibration error (%)")
        for cells_, error in zip(rows, errors, strict=True):
            cells_.append("" if math.isnan(error) else f"{100 * error:.1f}")
    return header, rows


def as_text(answer: Answer) -> str:
    """Return table, sentence, notes and failures as text."""
    header, rows = cells(answer)
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    failures = [f"failed: {pair.setting}, seed {pair.seed}: {error}" for pair, error in answer.failures.items()]
    notes = [f"note: {note}" for note in answer.notes]
    return "\n".join([*lines, "", answer.sentence, *notes, *failures])


def _fixed_cells(answer: Answer, row: Row) -> list[str]:
    unit = answer.unit
    difference = row.difference
    gain = "" if difference is None else f"{unit.number(difference.mean)} ({unit.interval(difference)})"
    sd = "" if math.isnan(row.sd) else unit.number(row.sd)
    return [row.setting, row.phase, unit.number(row.mean), sd, str(len(row.values)), gain]


def _recall(row: Row, group: str) -> str:
    return f"{100 * row.recalls[group]:.1f}" if group in row.recalls else ""
