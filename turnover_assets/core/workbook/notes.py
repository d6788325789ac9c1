"""The sheet Notes: what was put right in the history, and what is to be checked.

What belongs here: this sheet, in words.
"""

from typing import Any

import pandas as pd

from turnover_assets.core.workbook.cells import Column, Sheet
from turnover_assets.core.workbook.content import Content, as_date
from turnover_assets.core.workbook.forecast import shown

WIDTH = 8
FIRST, SECOND, WHY = 28, 40, 100  # widths of the columns that hold texts of any length
STATUS = {
    "applied": "put right",
    "proposed": "to be decided",
    "vetoed": "left as it is, by decision",
    "overruled": "decided otherwise",
}


def write_notes(sheet: Sheet, content: Content) -> None:
    """Write the sheet."""
    sheet.title(f"{content.title}: notes", "what was put right in the history, and what is to be checked")
    for column, width in enumerate((FIRST, SECOND, 12, 12, 26, 12, WHY, 16)):
        sheet.sheet.set_column(column, column, width)
    row = _adjustments(sheet, content, 3)
    row = _missing(sheet, content, row + 2)
    row = _restated(sheet, content, row + 2)
    _checks(sheet, content, row + 2)


def _adjustments(sheet: Sheet, content: Content, row: int) -> int:
    sheet.heading(row, "The history")
    if content.adjustments.empty:
        return sheet.lines(row + 1, "Nothing was found that concerns these series.") - 1
    rows = [
        [
            STATUS.get(one["status"], one["status"]),
            one["selector"],
            as_date(one["since"]),
            "goes on" if pd.isna(one["until"]) else as_date(one["until"]),
            _effect(one["factor"], one["value"]),
            int(one["rows"]),
            one["reason"] if isinstance(one["reason"], str) else None,
            one["who"] if isinstance(one["who"], str) else "found by itself",
        ]
        for one in content.adjustments.to_dict("records")
    ]
    columns = [
        Column("Status"),
        Column("What", "wrapped", SECOND),
        Column("Since", "date"),
        Column("Until", "date"),
        Column("Reported as"),
        Column("Values", "whole"),
        Column("Why", "wrapped", WHY),
        Column("Who"),
    ]
    return sheet.table(row + 1, columns, rows, "Adjustments").last


def _effect(factor: Any, value: Any) -> str | None:
    if not pd.isna(value):
        return f"instead of {float(value):,.4g}"
    return None if pd.isna(factor) else f"{float(factor):.2f} times its level"


def _missing(sheet: Sheet, content: Content, row: int) -> int:
    sheet.heading(row, f"Without a row in the newest {content.period_word}")
    if content.missing.empty:
        return sheet.lines(row + 1, "None: every series reported.") - 1
    keys = [*content.panel.keys]
    rows = [
        [", ".join(f"{name} {shown(one[name])}" for name in keys), as_date(one["last_reported"])]
        for one in content.missing.to_dict("records")
    ]
    return sheet.table(
        row + 1, [Column("Series", "wrapped", FIRST), Column("Last reported", "date")], rows, "Missing"
    ).last


def _restated(sheet: Sheet, content: Content, row: int) -> int:
    sheet.heading(row, "Reported values that a later file changed, the newest first")
    if content.restatements.empty:
        return sheet.lines(row + 1, "None.") - 1
    keys = [*content.panel.keys]
    rows = [
        [
            ", ".join(f"{name} {shown(one[name])}" for name in keys),
            one["new_file"],
            as_date(one[content.panel.time]),
            float(one["old_value"]),
            float(one["new_value"]),
        ]
        for one in content.restatements.to_dict("records")
    ]
    columns = [
        Column("Series", "wrapped", FIRST),
        Column("File", "wrapped", SECOND),
        Column(content.period_word.capitalize(), "date"),
        Column("Before", "amount"),
        Column("Now", "amount"),
    ]
    return sheet.table(row + 1, columns, rows, "Restated").last


def _checks(sheet: Sheet, content: Content, row: int) -> None:
    sheet.heading(row, "Checks of the data as a whole that did not pass")
    if content.checks.empty:
        sheet.lines(row + 1, "All passed.")
        return
    rows = [
        [
            one["severity"],
            f"{one['check_name'].replace('_', ' ')} of {one['asset']}",
            one["figure"],
            _limit(one),
        ]
        for one in content.checks.to_dict("records")
    ]
    columns = [
        Column("Weight"),
        Column("Check", "wrapped", SECOND),
        Column("Figure", "figure"),
        Column("Limit"),
    ]
    sheet.table(row + 1, columns, rows, "Checks")


def _limit(check: dict[Any, Any]) -> str:
    limits = [("at least", check["at_least"]), ("at most", check["at_most"])]
    return " and ".join(f"{word} {value:,.4g}" for word, value in limits if not pd.isna(value))
