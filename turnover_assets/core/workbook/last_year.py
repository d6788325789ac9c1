"""The sheet Last year: the same periods a year ago as reported, and as they are compared.

What belongs here: this sheet.
"""

from typing import Any

import numpy as np
from xlsxwriter.utility import xl_rowcol_to_cell

from turnover_assets.core.workbook.cells import Column, Formula, Rows, Sheet, cell, growth, total, words
from turnover_assets.core.workbook.content import LAST_YEAR, REPORTED_LAST_YEAR, Content
from turnover_assets.core.workbook.forecast import series_texts, shown, wide
from turnover_assets.core.workbook.layout import LAST_YEAR as NAME
from turnover_assets.core.workbook.layout import SUMMARY, Layout

HEADER = 4  # of the table by period


def write_last_year(sheet: Sheet, content: Content) -> None:
    """Write the sheet."""
    layout, word = Layout.of(content), content.period_word
    sheet.title(f"{content.title}: the same {word}s last year", content.amounts)
    sheet.sheet.set_column(0, 7 + layout.texts + layout.horizon, 13)
    by_series = Rows(HEADER + layout.horizon + 5, HEADER + layout.horizon + 4 + layout.series)
    sheet.heading(HEADER - 1, f"By {word}")
    sheet.table(HEADER, _period_columns(content), _period_rows(content, layout, by_series), "LastYear")
    row = by_series.first - 2
    sheet.heading(row, "As reported, by series")
    columns = _series_columns(content, layout, by_series)
    sheet.table(row + 1, columns, _series_rows(content, layout, by_series.first), "ReportedLastYear")
    _stopped(sheet, content, by_series.last + 4)


def _sums(content: Content, column: str) -> list[float]:
    table = wide(content, column)
    return [total(table[:, step]) for step in range(table.shape[1])]


def _period_rows(content: Content, layout: Layout, by_series: Rows) -> list[list[Any]]:
    ahead, then = _sums(content, "forecast"), _sums(content, LAST_YEAR)
    reported = _sums(content, REPORTED_LAST_YEAR)
    found = []
    for step, (label, before) in enumerate(zip(content.periods, content.a_year_ago, strict=True)):
        row, source = HEADER + 1 + step, layout.periods.first + step
        places = [cell(row, column) for column in range(8)]
        found.append(
            [
                label,
                before,
                Formula(f"={cell(source, 1, SUMMARY)}", ahead[step]),
                Formula(f"={cell(source, 4, SUMMARY)}", then[step]),
                Formula(f"={places[2]}-{places[3]}", ahead[step] - then[step]),
                growth(places[2], places[3], (ahead[step], then[step])),
                Formula(f"=SUM({by_series.range(layout.forecast(step))})", reported[step]),
                Formula(f"={places[6]}-{places[3]}", reported[step] - then[step]),
            ]
        )
    return found


def _period_columns(content: Content) -> list[Column]:
    layout = Layout.of(content)
    rows = Rows(HEADER + 1, HEADER + layout.horizon)
    ahead, then, reported = (
        total(_sums(content, name)) for name in ("forecast", LAST_YEAR, REPORTED_LAST_YEAR)
    )
    ends = [cell(rows.last + 1, column) for column in range(8)]

    def summed(column: int, value: float) -> Formula:
        return Formula(f"=SUM({rows.range(column, fixed=False)})", value)

    return [
        Column(content.period_word.capitalize(), "date", None, "Total"),
        Column("A year before", "date"),
        Column("Forecast", "sum", None, summed(2, ahead)),
        Column("Comparable", "sum", None, summed(3, then)),
        Column("Change", "sum_difference", None, Formula(f"={ends[2]}-{ends[3]}", ahead - then)),
        Column("Growth", "growth", None, growth(ends[2], ends[3], (ahead, then))),
        Column("As reported", "sum", None, summed(6, reported)),
        Column("Put right", "sum_difference", None, Formula(f"={ends[6]}-{ends[3]}", reported - then)),
    ]


def _series_rows(content: Content, layout: Layout, first: int) -> list[list[Any]]:
    reported, comparable = wide(content, REPORTED_LAST_YEAR), wide(content, LAST_YEAR)
    found = []
    for place, texts in enumerate(series_texts(content)):
        row = first + place
        was, now = total(reported[place]), total(comparable[place])
        cells = layout.between(layout.forecast(0), layout.total - 1, row)
        ends = [xl_rowcol_to_cell(row, layout.total + step) for step in range(2)]
        sums = [Formula(f"=SUM({cells})", was), now, Formula(f"={ends[0]}-{ends[1]}", was - now)]
        found.append([*texts, *reported[place], *sums])
    return found


def _series_columns(content: Content, layout: Layout, rows: Rows) -> list[Column]:
    was, now = (total(_sums(content, name)) for name in (REPORTED_LAST_YEAR, LAST_YEAR))
    ends = [xl_rowcol_to_cell(rows.last + 1, layout.total + step) for step in range(2)]

    def shown_sum(column: int, value: float) -> Formula:
        return Formula(f"=SUBTOTAL(109,{rows.range(column, fixed=False)})", value)

    sums = _sums(content, REPORTED_LAST_YEAR)
    texts = [Column(words(name), "key") for name in content.texts]
    return [
        Column(texts[0].header, "key", None, "Total"),
        *texts[1:],
        *(
            Column(str(label), "amount", None, shown_sum(layout.forecast(step), sums[step]))
            for step, label in enumerate(content.a_year_ago)
        ),
        Column("As reported", "amount", None, shown_sum(layout.total, was)),
        Column("Comparable", "amount", None, shown_sum(layout.total + 1, now)),
        Column("Put right", "difference", None, Formula(f"={ends[0]}-{ends[1]}", was - now)),
    ]


def _stopped(sheet: Sheet, content: Content, row: int) -> None:
    if content.stopped.empty:
        return
    sheet.heading(row, "Reported then, and no longer forecast")
    sheet.put(row + 1, 0, "These series have stopped reporting; they are in no sum above.", "subtitle")
    keys = [*content.panel.keys]
    amounts = content.stopped[REPORTED_LAST_YEAR].to_numpy(np.float64)
    columns = [Column(words(name), "key") for name in keys]
    rows = [
        [*(shown(value) for value in texts), amount]
        for texts, amount in zip(content.stopped[keys].itertuples(index=False), amounts, strict=True)
    ]
    data = Rows(row + 3, row + 2 + len(rows))
    below = Formula(f"=SUBTOTAL(109,{data.range(len(keys), fixed=False)})", total(list(amounts)))
    columns = [
        Column(words(keys[0]), "key", None, "Total"),
        *columns[1:],
        Column(NAME, "amount", None, below),
    ]
    sheet.table(row + 2, columns, rows, "Stopped")
