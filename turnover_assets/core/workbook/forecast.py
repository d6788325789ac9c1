"""The sheet Forecast: a row for each series, a column for each period, beside last year.

What belongs here: this sheet. Whatever a row's formulas and colours look at stands in the same row, so that
they stay right where a reader sorts or filters.
"""

from typing import Any

import numpy as np
import pandas as pd
from xlsxwriter.utility import xl_range, xl_range_abs, xl_rowcol_to_cell

from turnover_assets.core.workbook.cells import Column, Formula, Sheet, growth, total, words
from turnover_assets.core.workbook.content import LAST_YEAR, Content
from turnover_assets.core.workbook.layout import FORECAST_HEADER, Layout
from turnover_assets.core.workbook.styles import DOWN, UP

SHARE, AMOUNT = (2, 0), (2, 1)  # cells that say from which change on forecasts are coloured
MARKED_SHARE = 0.1  # until the reader says otherwise


def wide(content: Content, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column of the forecasts with a row for each series and a column for each period."""
    return content.forecasts[column].to_numpy(np.float64).reshape(-1, len(content.periods))


def series_texts(content: Content) -> list[list[Any]]:
    """What tells each series apart, in the order of the rows."""
    first = content.forecasts.iloc[:: len(content.periods)]
    return [[shown(value) for value in row] for row in first[content.texts].itertuples(index=False)]


def shown(value: Any) -> Any:
    """A key or attribute as a cell has it: whole numbers and texts; a flag in words; none as such."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return "(none)"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return value


def write_forecast(sheet: Sheet, content: Content) -> None:
    """Write the sheet."""
    layout = Layout.of(content)
    word = content.period_word
    sheet.title(
        f"{content.title}: forecast by {word}", f"{content.amounts}, {word}s labelled as in your files"
    )
    sheet.put(*SHARE, MARKED_SHARE, "share_input")
    sheet.put(*AMOUNT, _marked_amount(content), "amount_input")
    sheet.put(
        SHARE[0],
        2,
        "Changes from last year of at least this share and amount are coloured: blue above, orange below. "
        "Set your own. Press + above the columns to see last year.",
        "remark",
    )
    rows = _rows(content, layout)
    sheet.table(FORECAST_HEADER, _columns(content, layout), rows, "ForecastTable")
    _colour(sheet, layout)
    last = layout.last_year(layout.horizon - 1)
    sheet.sheet.set_column(layout.last_year(0), last, 11, None, {"level": 1, "hidden": True})
    sheet.sheet.set_column(last + 1, last + 1, None, None, {"collapsed": True})
    sheet.sheet.freeze_panes(FORECAST_HEADER + 1, layout.texts)


def _rows(content: Content, layout: Layout) -> list[list[Any]]:
    ahead, before = wide(content, "forecast"), wide(content, LAST_YEAR)
    found = []
    for place, texts in enumerate(series_texts(content)):
        row = layout.rows.first + place
        now, then = total(ahead[place]), total(before[place])
        sums = _sums(layout, row)
        ends = [xl_rowcol_to_cell(row, layout.total + step) for step in range(2)]
        found.append(
            [
                *texts,
                *ahead[place],
                Formula(sums[0], now),
                Formula(sums[1], then),
                Formula(f"={ends[0]}-{ends[1]}", now - then),
                growth(ends[0], ends[1], (now, then)),
                *before[place],
            ]
        )
    return found


def _sums(layout: Layout, row: int) -> tuple[str, str]:
    last = layout.horizon - 1
    ahead = layout.between(layout.forecast(0), layout.forecast(last), row)
    before = layout.between(layout.last_year(0), layout.last_year(last), row)
    return f"=SUM({ahead})", f"=SUM({before})"


def _columns(content: Content, layout: Layout) -> list[Column]:
    ahead, before = wide(content, "forecast"), wide(content, LAST_YEAR)
    now, then = total([total(row) for row in ahead]), total([total(row) for row in before])
    sums = [_below(layout, layout.total + step) for step in range(2)]
    ends = [xl_rowcol_to_cell(layout.rows.last + 1, layout.total + step) for step in range(2)]
    texts = [Column(words(name), "key", 12) for name in content.texts]
    return [
        Column(texts[0].header, "key", 12, "Total"),
        *texts[1:],
        *(
            Column(
                str(label),
                "amount",
                11,
                Formula(_below(layout, layout.forecast(step)), total(ahead[:, step])),
            )
            for step, label in enumerate(content.periods)
        ),
        Column("Forecast", "amount", 12, Formula(sums[0], now)),
        Column("Last year", "amount", 12, Formula(sums[1], then)),
        Column("Change", "difference", 12, Formula(f"={ends[0]}-{ends[1]}", now - then)),
        Column("Growth", "growth", 10, growth(ends[0], ends[1], (now, then))),
        *(
            Column(
                str(label),
                "amount",
                None,
                Formula(_below(layout, layout.last_year(step)), total(before[:, step])),
            )
            for step, label in enumerate(content.a_year_ago)
        ),
    ]


def _below(layout: Layout, column: int) -> str:
    """The sum of what a filter shows of a column."""
    return f"=SUBTOTAL(109,{layout.rows.range(column, fixed=False)})"


def _marked_amount(content: Content) -> float:
    """A hundredth of a usual forecast, as a round number."""
    amount = content.usual_amount / 100
    return float(f"{amount:.1g}")


def _colour(sheet: Sheet, layout: Layout) -> None:
    """Mark forecasts, and sums of them, by how far they are from last year."""
    rows, last = layout.rows, layout.horizon - 1
    spans = [
        (layout.forecast(0), layout.forecast(last), layout.last_year(0)),
        (layout.total, layout.total, layout.total + 1),
        (layout.total + 3, layout.total + 3, None),
    ]
    share, amount = xl_range_abs(*SHARE, *SHARE), xl_range_abs(*AMOUNT, *AMOUNT)
    for first, end, before in spans:
        cells = xl_range(rows.first, first, rows.last, end)
        value = xl_rowcol_to_cell(rows.first, first if before is not None else layout.total)
        base = xl_rowcol_to_cell(rows.first, before if before is not None else layout.total + 1)
        for looks, more, less in ((UP, value, base), (DOWN, base, value)):
            criteria = f"=AND(N({base})>0,{more}-{less}>={share}*{base},{more}-{less}>={amount})"
            rule = {"type": "formula", "criteria": criteria, "format": sheet.styles.look(looks)}
            sheet.sheet.conditional_format(cells, rule)
