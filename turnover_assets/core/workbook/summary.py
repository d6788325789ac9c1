"""The sheet Summary: what this is, the figures that matter, and how to read the rest.

What belongs here: this sheet. All its sums are formulas on the sheet Forecast.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from turnover_assets.core.workbook.cells import Column, Formula, Sheet, cell, growth, total, words
from turnover_assets.core.workbook.content import LAST_YEAR, NAIVE, Content
from turnover_assets.core.workbook.forecast import series_texts, wide
from turnover_assets.core.workbook.layout import BY_PERIOD_HEADER, DETAILS, FORECAST, NOTES, Layout
from turnover_assets.core.workbook.layout import LAST_YEAR as LAST_YEAR_SHEET

MOST_MEMBERS = 40  # of a key, for a table of its own
WIDTH = 8  # columns that headings span
NOTABLE = 0.005  # share of the forecast without last year that is told
TILES = 3  # row of the labels of the large figures


def write_summary(sheet: Sheet, content: Content) -> None:
    """Write the sheet."""
    layout, origin, word = Layout.of(content), content.origin, content.period_word
    sheet.sheet.set_column(0, 0, 16)
    sheet.sheet.set_column(1, WIDTH - 1, 14)
    ahead = f"the {layout.horizon} {word}s from {content.periods[0]} to {content.periods[-1]}"
    sheet.title(f"{content.title}: {ahead}", _subtitle(content))
    _tiles(sheet, content, layout)
    row = _by_period(sheet, content, layout)
    for number, column in enumerate(content.texts):
        row = _by_member(sheet, content, layout, row + 2, number, column)
    row = _reading(sheet, content, row + 2)
    sheet.heading(row + 1, "Where it comes from")
    facts = [
        ("Known up to", str(origin.cutoff)),
        ("Published", f"{origin.created_at:%Y-%m-%d %H:%M} UTC"),
        ("Model", f"{origin.candidate.replace('_', ' ')}, version {origin.model_version}"),
        ("Snapshot", origin.snapshot),
        ("Data version", origin.data_version),
        ("Release", f"turnover-assets {origin.code_version}"),
    ]
    for place, (name, value) in enumerate(facts, start=row + 2):
        sheet.put(place, 0, name, "label")
        sheet.put(place, 1, value)


def _subtitle(content: Content) -> str:
    layout = Layout.of(content)
    return f"{content.amounts}; {layout.series:,} series; known up to {content.origin.cutoff}"


def _sums(content: Content, layout: Layout) -> tuple[list[float], list[float]]:
    """By period: forecast, and last year."""
    ahead, before = wide(content, "forecast"), wide(content, LAST_YEAR)
    steps = range(layout.horizon)
    return [total(ahead[:, step]) for step in steps], [total(before[:, step]) for step in steps]


def _tiles(sheet: Sheet, content: Content, layout: Layout) -> None:
    """The large figures."""
    for place, name in enumerate(("Forecast", "Same periods last year", "Change", "Growth")):
        sheet.put(TILES, 2 * place, name, "label")
    sheet.sheet.set_row(TILES + 1, 24)
    ahead, before = (total(values) for values in _sums(content, layout))
    periods = layout.periods
    row, places = TILES + 1, [cell(TILES + 1, column) for column in (0, 2)]
    sheet.put(row, 0, Formula(f"=SUM({periods.range(1)})", ahead), "big_sum")
    sheet.put(row, 2, Formula(f"=SUM({periods.range(4)})", before), "big_sum")
    sheet.put(row, 4, Formula(f"={places[0]}-{places[1]}", ahead - before), "big_difference")
    sheet.put(row, 6, growth(places[0], places[1], (ahead, before)), "big_growth")


def _by_period(sheet: Sheet, content: Content, layout: Layout) -> int:
    """The table by period; gives its last row."""
    sheet.heading(BY_PERIOD_HEADER - 1, f"By {content.period_word}")
    ahead, before = _sums(content, layout)
    rows = []
    for step, label in enumerate(content.periods):
        row = BY_PERIOD_HEADER + 1 + step
        own = content.sums.iloc[step]
        places = cell(row, 1), cell(row, 4)
        forecast = layout.rows.range(layout.forecast(step), FORECAST)
        last_year = layout.rows.range(layout.last_year(step), FORECAST)
        rows.append(
            [
                label,
                Formula(f"=SUM({forecast})", ahead[step]),
                float(own["lower_80"]),
                float(own["upper_80"]),
                Formula(f"=SUM({last_year})", before[step]),
                Formula(f"={places[0]}-{places[1]}", ahead[step] - before[step]),
                growth(*places, (ahead[step], before[step])),
            ]
        )
    columns = [Column(content.period_word.capitalize(), "date", None, "Total"), *_compared(content, layout)]
    return sheet.table(BY_PERIOD_HEADER, columns, rows, "ByPeriod").last + 1


def _compared(content: Content, layout: Layout) -> list[Column]:
    ahead, before = (total(values) for values in _sums(content, layout))
    periods = layout.periods
    ends = cell(periods.last + 1, 1), cell(periods.last + 1, 4)
    return [
        Column("Forecast", "sum", None, Formula(f"=SUM({periods.range(1, fixed=False)})", ahead)),
        Column("Likely from", "sum"),
        Column("Likely to", "sum"),
        Column("Last year", "sum", None, Formula(f"=SUM({periods.range(4, fixed=False)})", before)),
        Column("Change", "sum_difference", None, Formula(f"={ends[0]}-{ends[1]}", ahead - before)),
        Column("Growth", "growth", None, growth(*ends, (ahead, before))),
    ]


def _by_member(sheet: Sheet, content: Content, layout: Layout, row: int, number: int, column: str) -> int:
    """A table by the members of a key or level, where they are a handful; gives the last row."""
    members = [texts[number] for texts in series_texts(content)]
    distinct = sorted(set(members), key=lambda value: (isinstance(value, str), value))
    if not 2 <= len(distinct) <= min(MOST_MEMBERS, layout.series - 1):
        return row - 2
    sheet.heading(row, f"By {column.replace('_', ' ')}")
    ahead = np.nansum(wide(content, "forecast"), axis=1)
    before = np.nansum(wide(content, LAST_YEAR), axis=1)
    chosen = np.array(members, dtype=object)
    whole = float(ahead.sum())
    rows: list[Sequence[Any]] = []
    for place, member in enumerate(distinct, start=row + 2):
        of = chosen == member
        now, then = float(ahead[of].sum()), float(before[of].sum())
        places = cell(place, 1), cell(place, 2)
        rows.append(
            [
                member,
                Formula(_sum_of(layout, number, layout.total, cell(place, 0), distinct), now),
                Formula(_sum_of(layout, number, layout.total + 1, cell(place, 0), distinct), then),
                Formula(f"={places[0]}-{places[1]}", now - then),
                growth(*places, (now, then)),
                growth_share(cell(place, 1), cell(TILES + 1, 0), now, whole),
            ]
        )
    columns = [
        Column(words(column), "key"),
        Column("Forecast", "sum"),
        Column("Last year", "sum"),
        Column("Change", "sum_difference"),
        Column("Growth", "growth"),
        Column("Share", "share"),
    ]
    return sheet.table(row + 1, columns, rows, f"By_{number + 1}").last


def growth_share(part: str, whole: str, value: float, of: float) -> Formula:
    """A part of a whole; nothing where the whole is not above 0."""
    return Formula(f'=IF({whole}>0,{part}/{whole},"")', value / of if of > 0 else "")


def _sum_of(layout: Layout, column: int, amounts: int, member: str, distinct: Sequence[Any]) -> str:
    """Formula for the sum over the series of a member.

    SUMIFS is what a reader expects; but to it `1` and `01`, or `a` and `A`, are one, and `<3` is a condition.
    """
    members = layout.rows.range(column, FORECAST)
    values = layout.rows.range(amounts, FORECAST)
    if are_plain(distinct):
        return f"=SUMIFS({values},{members},{member})"
    return f"=SUMPRODUCT(--EXACT({members},{member}),{values})"


def are_plain(members: Sequence[Any]) -> bool:
    """Whether Excel's conditions tell all members apart.

    Example:
        >>> are_plain([1, 2]), are_plain(["north", "south"]), are_plain(["1", "01"]), are_plain(["a", "A"])
        (True, True, False, False)
    """
    texts = [member for member in members if isinstance(member, str)]
    if len(texts) != len(members):
        return not texts
    folded = {text.casefold() for text in texts}
    return len(folded) == len(texts) and all(re.fullmatch(r"[^\W\d][\w ]*", text) for text in texts)


def _reading(sheet: Sheet, content: Content, row: int) -> int:
    sheet.heading(row, "How to read this workbook")
    row += 1
    for line in _advice(content):
        row = sheet.lines(row, line, "line")
    return row


def _advice(content: Content) -> Iterator[str]:
    word, season = content.period_word, content.panel.frequency.season
    yield (
        f"Forecast is the amount to expect. Four times in five the amount of a {word} should lie between "
        "Likely from and Likely to; these bounds are made for the sum, and bounds are never added up."
    )
    yield (
        f"Last year is the same {word} {season} {word}s before, with what was reported wrongly put right; "
        f"{LAST_YEAR_SHEET} shows what was reported.{_without_last_year(content)}"
    )
    yield (
        f"{FORECAST} has every series with all {word}s, {DETAILS} a row for each series and {word} with "
        f"bounds and the reason; {NOTES} lists what was put right in the history, and what is to be checked."
    )
    yield from _accuracy(content)


def _without_last_year(content: Content) -> str:
    """How much of the forecast has no last year, which growth does not allow for."""
    without = content.forecasts[content.forecasts[LAST_YEAR].isna()]
    share = without["forecast"].sum() / max(float(content.forecasts["forecast"].sum()), 1e-9)
    if share < NOTABLE:
        return ""
    return f" {share:.1%} of the forecast has no last year to compare with, so that growth is overstated."


def _accuracy(content: Content) -> Iterator[str]:
    of = content.promised[content.promised["basis"] == "sums"].set_index("model")["wape"].to_dict()
    single = content.promised[content.promised["basis"] == "series"].set_index("model")["wape"].to_dict()
    if (wape := single.get("champion")) is not None:
        naive = single.get(NAIVE)
        against = f", against {naive:.0%} for last year's amounts" if naive is not None else ""
        sums = f"; forecasts of the sum by {of['champion']:.0%}" if "champion" in of else ""
        yield (
            f"In tests on past {content.period_word}s, forecasts of single series were off by {wape:.0%} "
            f"of the amount{against}{sums}."
        )
