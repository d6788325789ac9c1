"""The sheet Chart: history, forecast, last year and the likely range, and the figures they are drawn from.

What belongs here: this sheet. The chart is Excel's own, so that a reader can change it.
"""

from datetime import date, timedelta
from typing import Any

import numpy as np
from xlsxwriter.chart import Chart
from xlsxwriter.workbook import Workbook

from turnover_assets.core.workbook.cells import Column, Formula, Rows, Sheet, cell, is_missing, quoted
from turnover_assets.core.workbook.content import HISTORY_SHOWN, LAST_YEAR, Content, as_date
from turnover_assets.core.workbook.layout import CHART, SUMMARY, Layout
from turnover_assets.core.workbook.styles import BAND, BLUE, GREY, INK, ORANGE

HEADER = 27  # row of the header of the figures, below the picture
LAST_COLUMN = 8
SIZE = {"width": 930, "height": 470}
SAME = 1e-6  # relative; what was reported is drawn where it differs by more from what it is compared by


def write_chart(book: Workbook, sheet: Sheet, content: Content) -> None:
    """Write the sheet."""
    layout = Layout.of(content)
    sheet.title(
        f"{content.title}: the last year and the next {layout.horizon} {content.period_word}s",
        _about(content),
    )
    history = _history(content)
    repaired = any(abs(was - now) > SAME * max(abs(now), 1.0) for _, was, now in history)
    rows = [*_past_rows(content, history), *_ahead_rows(content, layout)]
    sheet.sheet.print_area(0, 0, HEADER - 2, LAST_COLUMN)
    places = sheet.table(HEADER, _columns(content), rows, "ChartData")
    drawing = _drawing(book, content, places, repaired=repaired)
    sheet.sheet.insert_chart(
        2, 0, drawing, {"object_position": 2, "description": f"{content.title}: {_about(content)}"}
    )


def _about(content: Content) -> str:
    return f"{content.amounts}; the shaded range holds four {content.period_word}s in five"


def _history(content: Content) -> list[tuple[date, float, float]]:
    """The newest periods with what was reported and what it is compared by."""
    newest = content.history.tail(HISTORY_SHOWN[content.panel.frequency.every])
    columns = (newest[name] for name in (content.panel.time, "reported", "comparable"))
    return [(as_date(label), was, now) for label, was, now in zip(*columns, strict=True)]


def _year_before(content: Content) -> dict[date, float]:
    """What is comparable, by the label of the period a season later."""
    season = timedelta(days=content.panel.frequency.season * content.panel.frequency.days)
    labels = (as_date(label) + season for label in content.history[content.panel.time])
    return dict(zip(labels, content.history["comparable"].to_numpy(np.float64), strict=True))


def _past_rows(content: Content, history: list[tuple[date, float, float]]) -> list[list[Any]]:
    before = _year_before(content)
    return [
        [label, comparable, reported, before.get(label), None, None, None, *_shade(row, comparable, None)]
        for row, (label, reported, comparable) in enumerate(history, start=HEADER + 1)
    ]


def _shade(row: int, lower: float, upper: float | None) -> tuple[Formula | None, Formula | None]:
    """Where the shading begins and how high it is; it runs along the history, or it would rise from 0."""
    if is_missing(lower):
        return None, None
    base = Formula(f"={cell(row, 1 if upper is None else 5)}", lower)
    if upper is None:
        return base, Formula(f"={cell(row, 1)}-{cell(row, 7)}", 0.0)
    return base, Formula(f"={cell(row, 6)}-{cell(row, 5)}", upper - lower)


def _ahead_rows(content: Content, layout: Layout) -> list[list[Any]]:
    first = HEADER + 1 + len(_history(content))
    bounds = content.sums[["lower_80", "upper_80"]].to_numpy(np.float64)
    ahead = content.forecasts.groupby(content.panel.time, sort=True)[["forecast", LAST_YEAR]].sum()
    found: list[list[Any]] = []
    for step, label in enumerate(content.periods):
        source = layout.periods.first + step
        lower, upper = (float(bound) for bound in bounds[step])
        found.append(
            [
                label,
                None,
                None,
                Formula(f"={cell(source, 4, SUMMARY)}", float(ahead[LAST_YEAR].iloc[step])),
                Formula(f"={cell(source, 1, SUMMARY)}", float(ahead["forecast"].iloc[step])),
                lower,
                upper,
                *_shade(first + step, lower, upper),
            ]
        )
    return found


def _columns(content: Content) -> list[Column]:
    return [
        Column(content.period_word.capitalize(), "date", 14),
        Column("History", "sum", 14),
        Column("As reported", "sum", 14),
        Column("Last year", "sum", 14),
        Column("Forecast", "sum", 14),
        Column("Likely from", "sum", 14),
        Column("Likely to", "sum", 14),
        Column("Shading from", "sum", 14),
        Column("Shading height", "sum", 14),
    ]


def _drawing(book: Workbook, content: Content, places: Rows, *, repaired: bool) -> Chart:
    band = book.add_chart({"type": "area", "subtype": "stacked"})
    band.add_series(_series(places, 7, {"fill": {"none": True}, "border": {"none": True}}))
    shade = {"fill": {"color": BAND, "transparency": 25}, "border": {"none": True}}
    band.add_series(_series(places, 8, shade, name="Likely range"))
    lines = book.add_chart({"type": "line"})
    drawn = [
        (3, {"line": {"color": ORANGE, "width": 1.5, "dash_type": "dash"}}),
        *([(2, {"line": {"color": GREY, "width": 1.0, "dash_type": "round_dot"}})] if repaired else []),
        (1, {"line": {"color": INK, "width": 2.25}}),
        (4, {"line": {"color": BLUE, "width": 2.75}, "marker": _marker()}),
    ]
    for column, looks in drawn:
        lines.add_series(_series(places, column, looks))
    band.combine(lines)
    band.set_x_axis(_time_axis(content))
    band.set_y_axis(
        {
            "num_format": "#,##0",
            "name": content.amounts,
            "name_font": {"bold": False, "color": INK},
            "major_gridlines": {"visible": True, "line": {"color": "#E3E8EC"}},
            "line": {"none": True},
        }
    )
    band.set_title({"none": True})
    band.set_legend({"position": "top", "delete_series": [0]})
    band.show_blanks_as("gap")
    band.set_size(SIZE)
    band.set_chartarea({"border": {"none": True}})
    return band


def _marker() -> dict[str, Any]:
    return {"type": "circle", "size": 5, "fill": {"color": BLUE}, "border": {"color": BLUE}}


def _time_axis(content: Content) -> dict[str, Any]:
    weekly = content.panel.frequency.every == "week"
    return {
        "date_axis": True,
        "num_format": "mmm yy" if weekly else "d mmm",
        "major_unit": 2 if weekly else 14,
        "major_unit_type": "months" if weekly else "days",
        "base_unit": "days",
        "line": {"color": GREY},
        "num_font": {"color": INK},
    }


def _series(places: Rows, column: int, looks: dict[str, Any], name: str = "") -> dict[str, Any]:
    return {
        "name": name or f"={quoted(CHART)}!{cell(HEADER, column)}",
        "categories": f"={places.range(0, CHART)}",
        "values": f"={places.range(column, CHART)}",
        **looks,
    }
