"""The history's ends: which period is the first, and which the last one that counts as reported.

What belongs here: that rule. What does not: what is done as of a cutoff.
"""

import duckdb

from turnover_assets.errors import NothingToForecastError
from turnover_assets.panel import PanelSpec

MINIMUM_COVERAGE = 0.2  # of the usual number of series, for a period to count as reported
USUAL_PERIODS = 8  # reported periods beside one, from which its usual number of series is taken


def last_period(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> int:
    """Index of the newest period that counts as reported; forecasts begin after it.

    A period counts where at least MINIMUM_COVERAGE as many series reported it as usual (the median of the
    reported periods before it). So a lone row with a mistyped date does not move the forecasts of all others;
    it is used as soon as its period fills up.

    Raises:
        NothingToForecastError: There is no history, or too little to hold any of it out.
    """
    name = panel.series.name
    first, last = _ends(con, panel)
    if first is None or last is None:
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
    return last


def first_period(con: duckdb.DuckDBPyConnection, panel: PanelSpec, until: int | None = None) -> int:
    """Index of the oldest period that counts as reported: last_period's rule, with the periods after it.

    So a lone row with a mistyped date does not make the history longer than it is.

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        until: Later periods are not looked at.

    Raises:
        NothingToForecastError: There is no history.
    """
    first, _ = _ends(con, panel, until)
    if first is None:
        raise NothingToForecastError(f"There is no usable row of {panel.series.name}.")
    return first


def _ends(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, until: int | None = None
) -> tuple[int | None, int | None]:
    """First and last period that count as reported; see last_period."""
    usual = f"median(series) OVER (ORDER BY t {{}} ROWS BETWEEN {USUAL_PERIODS} PRECEDING AND 1 PRECEDING)"
    found = con.execute(
        f"SELECT min(t) FILTER (series >= {MINIMUM_COVERAGE} * coalesce(after, 0)), "
        f"max(t) FILTER (series >= {MINIMUM_COVERAGE} * coalesce(before, 0)) FROM (SELECT t, series, "
        f"{usual.format('')} AS before, {usual.format('DESC')} AS after FROM (SELECT t, count(*) AS series "
        f"FROM cleaned.{panel.series.name} WHERE t <= coalesce($until, t) GROUP BY t))",
        {"until": until},
    ).fetchall()[0]
    first, last = (None if end is None else int(end) for end in found)
    return first, last
