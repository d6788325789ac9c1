"""The whole workbook: its sheets in order, its properties, and its bytes.

What belongs here: putting sheets together. What does not: what they show.
"""

from collections.abc import Callable
from io import BytesIO

from xlsxwriter.workbook import Workbook

from turnover_assets.core.workbook import layout
from turnover_assets.core.workbook.accuracy import write_accuracy
from turnover_assets.core.workbook.cells import Sheet
from turnover_assets.core.workbook.chart import write_chart
from turnover_assets.core.workbook.content import Content
from turnover_assets.core.workbook.details import HEADER as DETAILS_HEADER
from turnover_assets.core.workbook.details import write_details
from turnover_assets.core.workbook.forecast import write_forecast
from turnover_assets.core.workbook.last_year import write_last_year
from turnover_assets.core.workbook.notes import write_notes
from turnover_assets.core.workbook.styles import Styles
from turnover_assets.core.workbook.summary import write_summary

LARGE = 100_000  # forecasts from which a workbook is written in constant memory, without Excel tables
OPTIONS = {
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "strings_to_numbers": False,
    "default_date_format": "yyyy-mm-dd",
}


def workbook(content: Content, *, large: int = LARGE) -> bytes:
    """The file.

    Args:
        content: What it is made from.
        large: Forecasts from which it is written in constant memory.
    """
    buffer, small = BytesIO(), len(content.forecasts) < large
    mode = {"in_memory": True} if small else {"constant_memory": True}
    with Workbook(buffer, {**OPTIONS, **mode}) as book:
        _describe(book, content)
        styles = Styles(book, content.usual_amount, content.usual_sum)
        for name, write, header in _sheets(book, content):
            sheet = Sheet(book, styles, name, tables=small)
            write(sheet)
            if name != layout.SUMMARY:
                sheet.sheet.set_landscape()
            sheet.printed(content.title, content.origin.cutoff, content.origin.snapshot, header)
    return buffer.getvalue()


def _sheets(book: Workbook, content: Content) -> list[tuple[str, Callable[[Sheet], None], int | None]]:
    """Each sheet with its name, and the row that is printed on every page."""
    return [
        (layout.SUMMARY, lambda sheet: write_summary(sheet, content), None),
        (layout.FORECAST, lambda sheet: write_forecast(sheet, content), layout.FORECAST_HEADER),
        (layout.CHART, lambda sheet: write_chart(book, sheet, content), None),
        (layout.LAST_YEAR, lambda sheet: write_last_year(sheet, content), None),
        (layout.ACCURACY, lambda sheet: write_accuracy(sheet, content), None),
        (layout.DETAILS, lambda sheet: write_details(sheet, content), DETAILS_HEADER),
        (layout.NOTES, lambda sheet: write_notes(sheet, content), None),
    ]


def _describe(book: Workbook, content: Content) -> None:
    """Properties that depend on the publishing alone, so that the same one gives the same bytes."""
    origin = content.origin
    book.set_properties(
        {
            "title": f"{content.title}: forecasts as of {origin.cutoff}",
            "subject": content.amounts,
            "author": f"turnover-assets {origin.code_version}",
            "comments": f"snapshot {origin.snapshot}, model version {origin.model_version}",
            "created": origin.created_at.replace(tzinfo=None, microsecond=0),
        }
    )
