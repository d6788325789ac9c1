"""Lists of members and series: searching, sorting and cutting them into pages.

What belongs here: the rows of such lists and their order. What does not: markup.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.serving.dashboard.members import series_address, series_title
from turnover_assets.serving.dashboard.shown import Member, Shown, relative

PAGE_ROWS = 400
WORD = re.compile(r"[\w.]+")
LONGEST_SEARCH = 100
FOUND_AT_MOST = 200


@dataclass(frozen=True)
class Row:
    """A row of a list; see Member for its figures."""

    title: str
    address: str
    next: float | None
    forecast: float | None
    last_year: float | None
    change: float | None
    share: float | None
    spark: tuple[float | None, ...] = ()
    ahead: int = 0


@dataclass(frozen=True)
class Column:
    """A column that can be sorted by."""

    name: str
    title: str
    key: Callable[[Row], Any]
    descends: bool  # at the first click


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes:
        rows: Its rows.
        count: Rows of the whole list.
        number: Which page it is, from 1.
        pages: How many there are.
        sort: The column it is sorted by; a minus before it where it descends.
        search: What was searched for.
        own: Parameters of the address that the list keeps.
    """

    rows: Sequence[Row]
    count: int
    number: int
    pages: int
    sort: str
    search: str
    own: dict[str, str]

    @property
    def is_whole(self) -> bool:
        """Whether the page has all rows, so that a script can sort and search them."""
        return self.pages <= 1 and not self.search

    def address(self, **changes: Any) -> str:
        """The same list otherwise."""
        wanted = {**self.own, "sort": self.sort, "q": self.search, "page": self.number, **changes}
        kept = {name: value for name, value in wanted.items() if value not in ("", 1)}
        return f"?{urlencode(kept)}"

    def sorted_by(self, column: Column) -> str:
        """Where a click on a column leads."""
        descending, ascending = f"-{column.name}", column.name
        first, second = (descending, ascending) if column.descends else (ascending, descending)
        return self.address(sort=second if self.sort == first else first, page=1)

    def direction(self, column: Column) -> str:
        """How it is sorted by a column, as aria-sort says it."""
        if self.sort == column.name:
            return "ascending"
        return "descending" if self.sort == f"-{column.name}" else "none"


def columns(every: str, horizon: int) -> tuple[Column, ...]:
    """The columns of lists."""
    ahead = f"Next {horizon} {every}s" if horizon > 1 else f"Next {every}"
    return (
        Column("name", "Name", lambda row: natural(row.title), descends=False),
        *([Column("next", f"Next {every}", lambda row: row.next, descends=True)] if horizon > 1 else []),
        Column("forecast", ahead, lambda row: row.forecast, descends=True),
        Column("last_year", "Last year", lambda row: row.last_year, descends=True),
        Column("change", "Against last year", lambda row: row.change, descends=True),
    )


def natural(text: str) -> tuple[tuple[int, Any], ...]:
    """A key that sorts numbers within texts by their size.

    Example:
        >>> sorted(["store 10", "store 9"], key=natural)
        ['store 9', 'store 10']
    """
    return tuple(
        (0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"(\d+)", text) if part
    )


def member_row(member: Member, *, with_spark: bool = True) -> Row:
    """A member as a row."""
    return Row(
        member.title,
        member.address,
        member.next,
        member.forecast,
        member.last_year,
        member.change,
        member.share,
        member.spark if with_spark else (),
        member.ahead,
    )


def series_rows(shown: Shown, condition: str = "true", values: dict[str, Any] | None = None) -> list[Row]:
    """Series that are forecast, or were once, as rows; largest first."""
    total = shown.total.forecast
    return [
        Row(
            series_title(shown.panel, row),
            series_address(shown.panel, row),
            row["next"],
            row["forecast"],
            row["last_year"],
            relative(row["forecast"], row["last_year"]),
            row["forecast"] / total if row["forecast"] is not None and total > 0 else None,
        )
        for row in shown.view.records(
            f'SELECT * FROM "all series" WHERE {condition} '
            f"ORDER BY forecast DESC NULLS LAST, {', '.join(shown.panel.keys)}",
            values or {},
        )
    ]


def cut(rows: Iterable[Row], known: Sequence[Column], sort: str, search: str, page: int, **own: str) -> Page:
    """A page of rows.

    Args:
        rows: All rows, in the order that they have without a sort.
        known: The columns.
        sort: Name of one of them, with a minus before it to descend.
        search: Words that must be in the title.
        page: Which page, from 1.
        own: Parameters of the address to keep.
    """
    search = search[:LONGEST_SEARCH].strip()
    found = [row for row in rows if matches(row.title, search)]
    column = next((column for column in known if column.name == sort.removeprefix("-")), None)
    if column is not None:
        there = [row for row in found if column.key(row) is not None]
        there.sort(key=column.key, reverse=sort.startswith("-"))
        found = [*there, *(row for row in found if column.key(row) is None)]
    pages = max(1, -(-len(found) // PAGE_ROWS))
    number = min(max(1, page), pages)
    shown = found[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]
    return Page(shown, len(found), number, pages, sort if column else "", search, own)


@lru_cache(maxsize=64)
def _wanted(search: str) -> tuple[str, ...]:
    return tuple(WORD.findall(search.lower()))


def matches(title: str, search: str) -> bool:
    """Whether every word that is searched for begins a word of a title.

    Example:
        >>> matches("Store 3, department 73", "dep 73"), matches("Store 33, department 7", "73")
        (True, False)
    """
    words = WORD.findall(title.lower())
    return all(any(word.startswith(wanted) for word in words) for wanted in _wanted(search))


@dataclass(frozen=True)
class Found:
    """What a search finds.

    Attributes:
        rows: The first of those found, those that match whole words before others.
        count: How many there are.
        meant: The one that is certainly meant; None where there is none.
    """

    rows: Sequence[Row]
    count: int
    meant: Row | None


def found_in(shown: Shown, search: str) -> Found:
    """Members and series by a search."""
    search = search[:LONGEST_SEARCH]
    wanted = {*_wanted(search)}
    if not wanted:
        return Found((), 0, None)
    levels = [level for level in shown.members if level != TOTAL]
    rows = [member_row(member) for level in levels for member in shown.members[level].values()]
    words = {row.address: {*WORD.findall(row.title.lower())} for row in (*rows, *shown.series_rows)}
    hits = [row for row in (*rows, *shown.series_rows) if matches(row.title, search)]
    hits.sort(key=lambda row: (not wanted <= words[row.address], len(row.title)))
    exact = [row for row in hits if words[row.address] == wanted]
    sure = hits if len(hits) == 1 else exact
    return Found(hits[:FOUND_AT_MOST], len(hits), sure[0] if len(sure) == 1 else None)
