"""Where things stand that formulas of other sheets refer to.

What belongs here: places, worked out before any sheet is written. What does not: writing them.
"""

from dataclasses import dataclass

from xlsxwriter.utility import xl_col_to_name

from turnover_assets.core.workbook.cells import Rows
from turnover_assets.core.workbook.content import Content

SUMMARY, FORECAST, CHART, LAST_YEAR = "Summary", "Forecast", "Chart", "Last year"
ACCURACY, DETAILS, NOTES = "Accuracy", "Details", "Notes"
FORECAST_HEADER = 4  # row of the header of the table of forecasts; rows and columns begin at 0
BY_PERIOD_HEADER = 7  # row of the header of the table by period on the first sheet


@dataclass(frozen=True)
class Layout:
    """Places on the sheets Summary and Forecast.

    Attributes:
        texts: Columns that tell series apart.
        series: Series.
        horizon: Forecast periods.
    """

    texts: int
    series: int
    horizon: int

    @classmethod
    def of(cls, content: Content) -> "Layout":
        """The places in a workbook of some content."""
        horizon = len(content.periods)
        return cls(len(content.texts), len(content.forecasts) // horizon, horizon)

    @property
    def rows(self) -> Rows:
        """Rows of the series on the sheet Forecast."""
        return Rows(FORECAST_HEADER + 1, FORECAST_HEADER + self.series)

    @property
    def periods(self) -> Rows:
        """Rows of the periods on the sheet Summary."""
        return Rows(BY_PERIOD_HEADER + 1, BY_PERIOD_HEADER + self.horizon)

    @property
    def total(self) -> int:
        """Column of a series' sum; last year's sum, the change and the growth follow."""
        return self.texts + self.horizon

    def forecast(self, step: int) -> int:
        """Column of a forecast period, the first being 0."""
        return self.texts + step

    def last_year(self, step: int) -> int:
        """Column of the same period a year ago."""
        return self.total + 4 + step

    def between(self, first: int, last: int, row: int) -> str:
        """Reference to cells of one row."""
        return f"{xl_col_to_name(first)}{row + 1}:{xl_col_to_name(last)}{row + 1}"
