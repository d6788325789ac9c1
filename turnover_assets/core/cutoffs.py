"""The newest cutoff: which period is the last one that counts as reported.

What belongs here: that rule. What does not: what is done as of a cutoff.
"""

import duckdb

from turnover_assets.errors import NothingToForecastError
from turnover_assets.panel import PanelSpec

MINIMUM_COVERAGE = 0.2  # of the usual number of series, for a period to count as reported
USUAL_PERIODS = 8  # reported periods before one, from which its usual number of series is taken


def last_period(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> int:
    """Index of the newest period that counts as reported; forecasts begin after it.

    A period counts where at least MINIMUM_COVERAGE as many series reported it as usual (the median of the
    reported periods before it). So a lone row with a mistyped date does not move the forecasts of all others;
    it is used as soon as its period fills up.

    Raises:
        NothingToForecastError: There is no history, or too little to hold any of it out.
    """
    name = panel.series.name
    first, last = con.execute(
        f"SELECT min(t), max(t) FILTER (usual IS NULL OR series >= {MINIMUM_COVERAGE} * usual) FROM ("
        f"SELECT t, series, median(series) OVER (ORDER BY t ROWS BETWEEN {USUAL_PERIODS} PRECEDING "
        f"AND 1 PRECEDING) AS usual FROM (SELECT t, count(*) AS series FROM cleaned.{name} GROUP BY t))"
    ).fetchall()[0]
    if last is None:
        raise NothingToForecastError(
            f"There is no usable row of {name} yet, so there is nothing to forecast. "
            "`turnover export rejected` and the landed files' reasons say why rows were turned away."
        )
    needed = panel.horizon + 2
    if last - first + 1 < needed:
        raise NothingToForecastError(
            f"The history covers {last - first + 1} periods, but {needed} are needed (the horizon of "
            f"{panel.horizon} to compare models on, and two more). Land older files too."
        )
    return int(last)
