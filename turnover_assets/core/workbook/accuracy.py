"""The sheet Accuracy: what tests promised, and how published forecasts turned out.

What belongs here: this sheet.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from turnover_assets.core.workbook.cells import Column, Formula, Rows, Sheet, cell
from turnover_assets.core.workbook.content import NAIVE, Content

WIDTH = 8
MEASURES = (
    ("series", "wape", "Error of single series", "share", "mean distance from the amount, in parts of it"),
    ("sums", "wape", "Error of the sum", "share", "errors of series that cancel out do no harm here"),
    ("series", "bias", "Bias", "growth", "above 0: forecasts were too high"),
    ("series", "coverage_80", "In the likely range", "share", "should be 80 %"),
    ("series", "coverage_95", "In the 95 % range", "share", "should be 95 %"),
)


def write_accuracy(sheet: Sheet, content: Content) -> None:
    """Write the sheet."""
    sheet.title(f"{content.title}: how far forecasts can be trusted", content.amounts)
    sheet.sheet.set_column(0, 0, 24)
    sheet.sheet.set_column(1, WIDTH - 1, 14)
    row = _promised(sheet, content, 3)
    row = _tests(sheet, content, row + 2)
    row = _outcomes(sheet, content, row + 2)
    _live(sheet, content, row + 2)


def _promised(sheet: Sheet, content: Content, row: int) -> int:
    """What the last backtest found; gives the last row."""
    sheet.heading(row, f"In tests on past {content.period_word}s")
    found = {(one["model"], one["basis"]): one for one in content.promised.to_dict("records")}
    rows: list[list[Any]] = []
    for basis, name, words, _, meaning in MEASURES:
        own, naive = (_value(found.get((model, basis)), name) for model in ("champion", NAIVE))
        if own is not None:
            rows.append([words, own, naive, meaning])
    if not rows:
        return sheet.lines(row + 1, "There were no tests, or none of this member.") - 1
    for place, name in enumerate(("Measure", "This model", "Last year's", "What it is")):
        sheet.put(row + 1, place, name, "header")
    styles = {words: style for _, _, words, style, _ in MEASURES}
    for number, values in enumerate(rows, start=row + 2):
        looks = ("text", *[styles[values[0]]] * 2, "remark")
        for place, (value, look) in enumerate(zip(values, looks, strict=True)):
            sheet.put(number, place, value, look)
    return row + 1 + len(rows)


def _value(figures: Mapping[Any, Any] | None, name: str) -> float | None:
    value = None if figures is None else figures.get(name)
    return None if value is None or pd.isna(value) else float(value)


def _tests(sheet: Sheet, content: Content, row: int) -> int:
    sheet.heading(row, "The sum in those tests")
    time = content.panel.time
    known = content.tests.dropna(subset=["actual"])
    if known.empty:
        return sheet.lines(row + 1, "There were none.") - 1
    rows: list[list[Any]] = []
    for cutoff, test in known.groupby("cutoff", sort=True):
        amounts = float(test["forecast"].sum()), float(test["actual"].sum())
        rows.append([cutoff, test[time].max(), len(test), *_beside(row + 2 + len(rows), 3, amounts)])
    columns = [
        Column("As of", "date"),
        Column("Up to", "date"),
        Column(f"{content.period_word.capitalize()}s", "whole"),
        *_compared(),
    ]
    return sheet.table(row + 1, columns, rows, "Tests").last


def _outcomes(sheet: Sheet, content: Content, row: int) -> int:
    sheet.heading(row, "How published forecasts turned out")
    if content.outcomes.empty:
        text = f"None has turned out yet: they begin after {content.origin.cutoff}."
        return sheet.lines(row + 1, text) - 1
    rows: list[list[Any]] = []
    for one in content.outcomes.to_dict("records"):
        amounts = float(one["forecast"]), float(one["actual"])
        beside = _beside(row + 2 + len(rows), 3, amounts)
        rows.append([one[content.panel.time], one["cutoff"], one["horizon"], *beside])
    columns = [
        Column(content.period_word.capitalize(), "date"),
        Column("Forecast as of", "date"),
        Column(f"{content.period_word.capitalize()}s ahead", "whole"),
        *_compared(),
    ]
    return sheet.table(row + 1, columns, rows, "Outcomes").last


def _beside(row: int, column: int, amounts: tuple[float, float]) -> list[Any]:
    """Forecast, actual, their difference, and that in parts of the actual."""
    forecast, actual = amounts
    places = [cell(row, column + step) for step in range(3)]
    share = (forecast - actual) / actual if actual > 0 else ""
    return [
        forecast,
        actual,
        Formula(f"={places[0]}-{places[1]}", forecast - actual),
        Formula(f'=IF({places[1]}>0,{places[2]}/{places[1]},"")', share),
    ]


def _compared() -> list[Column]:
    return [
        Column("Forecast", "sum"),
        Column("Reported", "sum"),
        Column("Difference", "sum_difference"),
        Column("In parts", "growth"),
    ]


def _live(sheet: Sheet, content: Content, row: int) -> int:
    """Accuracy of what was published, by cutoff."""
    if content.live.empty:
        return row
    sheet.heading(row, "Published forecasts beside what was promised")
    columns = [
        Column("As of", "date"),
        Column("Model version", "whole"),
        Column(f"{content.period_word.capitalize()}s known", "whole"),
        Column("Error", "share"),
        Column("Promised", "share"),
        Column("Last year's", "share"),
        Column("Bias", "growth"),
        Column("In the range", "share"),
    ]
    names = ("cutoff", "model_version", "periods", "wape", "wape_promised", "wape_seasonal_naive", "bias")
    rows = [[one[name] for name in (*names, "coverage_80")] for one in content.live.to_dict("records")]
    data: Rows = sheet.table(row + 1, columns, rows, "Live")
    return data.last
