"""A sheet with what all sheets need: cells of any kind, tables, lines of text, print set-up.

What belongs here: how a value becomes a cell. What does not: which values a sheet shows.

Rows are written from top to bottom, so that large workbooks can be written in constant memory. There
xlsxwriter knows no Excel tables; a filter stands in their place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil, isfinite
from textwrap import wrap
from typing import Any, NamedTuple

import pandas as pd
from xlsxwriter.utility import xl_col_to_name, xl_range, xl_rowcol_to_cell
from xlsxwriter.workbook import Workbook
from xlsxwriter.worksheet import Worksheet

from turnover_assets.core.workbook.content import as_date
from turnover_assets.core.workbook.styles import Styles

LONGEST_TEXT = 32_767  # characters of a cell
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")  # what Excel takes for a formula where a person edits a cell
LINE = 118  # characters of a line of text across a sheet
LINE_HEIGHT = 15  # points
WIDEST = 30  # characters of a column whose width a table does not say
A4, MARGIN = 9, 0.5  # paper; inches


class Formula(NamedTuple):
    """A formula and the value that it has now; an empty text where it shows nothing."""

    text: str
    value: float | str


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        header: Its header; no two columns of a table have the same, in upper or lower case.
        style: Style of its cells.
        width: Its width in characters; that of the sheet's column stays where it is None.
        total: What stands below it: nothing, a text, or a formula.
    """

    header: str
    style: str = "text"
    width: float | None = None
    total: str | Formula | None = None


@dataclass(frozen=True)
class Rows:
    """The rows of data of a table, as numbers from 0: both included."""

    first: int
    last: int

    def range(self, column: int, sheet: str = "", *, fixed: bool = True) -> str:
        """Reference to a column of them."""
        name = xl_col_to_name(column, col_abs=fixed)
        dollar = "$" if fixed else ""
        cells = f"{name}{dollar}{self.first + 1}:{name}{dollar}{self.last + 1}"
        return f"{quoted(sheet)}!{cells}" if sheet else cells


class PlainFormulas(Worksheet):  # type: ignore[misc]
    """A worksheet whose formulas have no function of later releases of Excel, which needs a prefix.

    xlsxwriter looks for some thirty of them in each formula; here that took a sixth of a workbook's time.
    """

    def _prepare_formula(self, formula: str, expand_future_functions: bool = False) -> str:  # noqa: ARG002
        return formula.removeprefix("=")


class Sheet:
    """One sheet.

    Args:
        book: The workbook.
        styles: Its styles.
        name: Name of the sheet.
        tables: Whether there can be Excel tables.
    """

    def __init__(self, book: Workbook, styles: Styles, name: str, *, tables: bool) -> None:
        self.name, self.sheet = name, book.add_worksheet(name, PlainFormulas)
        self.styles, self._tables = styles, tables
        self._quiet: list[str] = []
        self.sheet.hide_gridlines(2)

    def put(self, row: int, column: int, value: Any, style: str = "text") -> None:
        """Write a cell: a text, a number, a date, a formula; what is missing leaves it empty."""
        if isinstance(value, float) and isfinite(value):  # as most are
            self.sheet.write_number(row, column, value, self.styles(style))
        elif isinstance(value, Formula):
            shape = self.styles(style)
            self.sheet.write_formula(row, column, value.text, shape, value.value)
        elif isinstance(value, str):
            shape = self.styles(style, quoted=value.startswith(FORMULA_SIGNS))
            self.sheet.write_string(row, column, value[:LONGEST_TEXT], shape)
        elif is_missing(value):
            self.sheet.write_blank(row, column, None, self.styles(style))
        elif isinstance(value, date):
            day = as_date(value)
            shape = self.styles("date" if style == "text" else style)
            self.sheet.write_datetime(row, column, day, shape)
        else:
            self.sheet.write_number(row, column, float(value), self.styles(style))

    def title(self, title: str, subtitle: str) -> None:
        """The first two rows."""
        self.sheet.set_row(0, 26)
        self.put(0, 0, title, "title")
        self.put(1, 0, subtitle, "subtitle")

    def heading(self, row: int, text: str) -> None:
        """A heading."""
        self.sheet.set_row(row, 20)
        self.put(row, 0, text, "heading")

    def lines(self, row: int, text: str, style: str = "subtitle") -> int:
        """A text on as many rows as it needs; gives the row after it."""
        for line in wrap(text, LINE) or [""]:
            self.put(row, 0, line, style)
            row += 1
        return row

    def table(self, row: int, columns: Sequence[Column], rows: Sequence[Sequence[Any]], name: str) -> Rows:
        """A table with a header, a filter, and a row of totals where a column has one.

        Args:
            row: The row of its header.
            columns: Its columns, from the sheet's first column on.
            rows: At least one row of values.
            name: Name of the table, unique in the workbook.
        """
        for place, column in enumerate(columns):
            if column.width is not None:
                self.sheet.set_column(place, place, column.width)
            self.put(row, place, column.header, "header")
        self.sheet.set_row(row, LINE_HEIGHT * max(map(_header_lines, columns)))
        found = Rows(row + 1, row + len(rows))
        for number, values in enumerate(rows, start=found.first):
            for place, (column, value) in enumerate(zip(columns, values, strict=True)):
                self.put(number, place, value, column.style)
            if (height := self._lines(columns, values)) > 1:
                self.sheet.set_row(number, LINE_HEIGHT * height)
        if any(column.total is not None for column in columns):
            for place, column in enumerate(columns):
                self.put(found.last + 1, place, column.total, self.styles.total(column.style))
        if self._tables:
            self.sheet.add_table(row, 0, found.last, len(columns) - 1, self._options(columns, name))
        else:
            self.sheet.autofilter(row, 0, found.last, len(columns) - 1)
        self._no_green_corners(row, found.last + 1, len(columns))
        return found

    def _lines(self, columns: Sequence[Column], values: Sequence[Any]) -> int:
        """How many lines the texts of a row need that are wrapped."""
        return max(
            (
                ceil(len(value) / (column.width or 1))
                for column, value in zip(columns, values, strict=True)
                if column.style == "wrapped" and isinstance(value, str)
            ),
            default=1,
        )

    def _options(self, columns: Sequence[Column], name: str) -> dict[str, Any]:
        """The totals are no part of the table: in a table's formulas, names of columns would stand."""
        header = self.styles("header")
        described = [{"header": column.header, "header_format": header} for column in columns]
        return {"name": name, "style": "Table Style Light 1", "columns": described}

    def _no_green_corners(self, first: int, last: int, columns: int) -> None:
        """Excel marks numbers kept as text and sums that leave out a neighbour; both are meant so here."""
        cells = xl_range(first, 0, last, columns - 1)
        self._quiet.append(cells)
        spans = " ".join(self._quiet)
        self.sheet.ignore_errors(
            {"number_stored_as_text": spans, "formula_range": spans, "formula_differs": spans}
        )

    def printed(self, title: str, cutoff: date, snapshot: str, header_row: int | None = None) -> None:
        """How the sheet is printed: as wide as the page, with title and page numbers.

        Args:
            title: On the left of each page's head.
            cutoff: On its right.
            snapshot: On the left of each page's foot.
            header_row: The row that is repeated on every page, if any.
        """
        self.sheet.set_paper(A4)
        self.sheet.set_margins(left=MARGIN, right=MARGIN, top=0.8, bottom=0.7)
        self.sheet.fit_to_pages(1, 0)
        self.sheet.set_header(f'&L&"Calibri,Bold"{for_header(title)}&C{self.name}&RAs of {cutoff}')
        self.sheet.set_footer(f"&L{for_header(snapshot)}&RPage &P of &N")
        if header_row is not None:
            self.sheet.repeat_rows(header_row)


def _header_lines(column: Column) -> int:
    """Lines that a header needs; words are not broken."""
    width = max(1, int((column.width or WIDEST) - 1))
    return len(wrap(column.header, width, break_long_words=False)) or 1


def is_missing(value: Any) -> bool:
    """Whether there is nothing to show: None, NaN, NaT, or no finite number."""
    if value is None or value is pd.NaT or value is pd.NA:
        return True
    return not isinstance(value, date) and not isfinite(float(value))


def for_header(text: str) -> str:
    """A text for the head or foot of a printed page, where & begins a code; cut to what has room.

    Example:
        >>> for_header("Region A&B")
        'Region A&&B'
    """
    return text[:80].replace("&", "&&").replace("\n", " ")


def words(name: str) -> str:
    """A canonical name as a header has it.

    Example:
        >>> words("sales_area")
        'Sales area'
    """
    return name.replace("_", " ").capitalize()


def quoted(sheet: str) -> str:
    """A sheet's name as formulas write it.

    Example:
        >>> quoted("Last year")
        "'Last year'"
    """
    return sheet if sheet.isalnum() else "'" + sheet.replace("'", "''") + "'"


def cell(row: int, column: int, sheet: str = "") -> str:
    """Reference to a cell, of another sheet where one is named."""
    name: str = xl_rowcol_to_cell(row, column)
    return f"{quoted(sheet)}!{name}" if sheet else name


def growth(value: str, base: str, numbers: tuple[float, float]) -> Formula:
    """The growth of one cell over another; nothing where the other is none, or not above 0.

    Args:
        value: Reference to the cell, or an expression.
        base: Reference to the other.
        numbers: What they hold.
    """
    now, before = numbers
    shown = now / before - 1 if before > 0 else ""
    return Formula(f'=IF(N({base})>0,{value}/{base}-1,"")', shown)


def total(values: Iterable[float]) -> float:
    """A sum as Excel has it: from first to last, without what is missing."""
    found = 0.0
    for value in values:
        found += 0.0 if is_missing(value) else float(value)
    return found
