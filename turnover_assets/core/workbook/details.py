"""The sheet Details: a row for each series and period, with all bounds and the reason; for pivot tables.

What belongs here: this sheet.
"""

from typing import Any

from turnover_assets.core.conformal import BOUNDS
from turnover_assets.core.workbook.cells import Column, Sheet, cell, growth, words
from turnover_assets.core.workbook.content import LAST_YEAR, REPORTED_LAST_YEAR, Content, as_date
from turnover_assets.core.workbook.forecast import shown

HEADER = 3
NAMES = {
    "lower_80": "Likely from (80 %)",
    "upper_80": "Likely to (80 %)",
    "lower_95": "From (95 %)",
    "upper_95": "To (95 %)",
}


def write_details(sheet: Sheet, content: Content) -> None:
    """Write the sheet."""
    sheet.title(
        f"{content.title}: every forecast",
        f"{content.amounts}; a row for each series and {content.period_word}",
    )
    sheet.table(HEADER, _columns(content), _rows(content), "AllForecasts")
    sheet.sheet.freeze_panes(HEADER + 1, len(content.texts) + 1)


def _columns(content: Content) -> list[Column]:
    return [
        *(Column(words(name), "key", 12) for name in content.texts),
        Column(content.period_word.capitalize(), "date", 12),
        Column("Ahead", "whole", 8),
        Column("Forecast", "amount", 12),
        *(Column(NAMES[bound], "amount", 12) for bound in BOUNDS),
        Column("Last year", "amount", 12),
        Column("Growth", "growth", 10),
        Column("Last year as reported", "amount", 12),
        Column("Why", "wrapped", 130),
    ]


def _rows(content: Content) -> list[list[Any]]:
    found = []
    place = len(content.texts) + 2
    for row, one in enumerate(content.forecasts.to_dict("records"), start=HEADER + 1):
        amounts = float(one["forecast"]), float(one[LAST_YEAR])
        places = cell(row, place), cell(row, place + 1 + len(BOUNDS))
        found.append(
            [
                *(shown(one[name]) for name in content.texts),
                as_date(one[content.panel.time]),
                int(one["horizon"]),
                amounts[0],
                *(float(one[bound]) for bound in BOUNDS),
                amounts[1],
                growth(*places, amounts),
                float(one[REPORTED_LAST_YEAR]),
                one["sentence"] if isinstance(one["sentence"], str) else None,
            ]
        )
    return found
