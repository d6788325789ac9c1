"""Published forecasts beside what was reported since: the newest periods, on which the page judges.

What belongs here: choosing them, and what the page adds up over them. What does not: accuracy by cutoff and
by member, which is in the tables of schema monitoring.
"""

from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.forecast_history import BASELINE, CHAMPION, HISTORY
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.monitoring_page.pictures import Distribution
from turnover_assets.core.tables import has_table
from turnover_assets.core.templating import Records, records
from turnover_assets.panel import PanelSpec

OUTCOMES = "page_outcomes"
ERROR_EDGES = np.round(
    np.arange(-1.5, 1.51, 0.1), 1
)  # shares of a usual value; errors beyond count at the ends
WORST = 15
# Where an outcome can fall, and what share of them is meant to.
ZONES = {
    "below\n95 %": ("actual < lower_95", 0.025),
    "below\n80 %": ("actual >= lower_95 AND actual < lower_80", 0.075),
    "inside": ("actual >= lower_80 AND actual <= upper_80", 0.8),
    "above\n80 %": ("actual > upper_80 AND actual <= upper_95", 0.075),
    "above\n95 %": ("actual > upper_95", 0.025),
}


def prepare(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> int:
    """Make the temporary table of outcomes, and return its rows.

    A row for each forecast of a champion whose target period is among the newest H (H = horizon) up to `last`
    and was reported: the series keys, `cutoff`, the time, `horizon`, `forecast`, bounds, `naive` (what the
    seasonal naive forecast was) and `actual` (reported).

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        last: Index of the newest period that counts as reported.
    """
    if not has_table(con, HISTORY):
        empty = [f"NULL::DOUBLE AS {name}" for name in ("forecast", *BOUNDS, "naive", "actual")]
        columns = [*panel.keys, f"CAST({panel.time} AS DATE) AS cutoff", panel.time, "0 AS horizon", *empty]
        source = f"cleaned.{panel.series.name} LIMIT 0"
        con.execute(f"CREATE OR REPLACE TEMP TABLE {OUTCOMES} AS SELECT {', '.join(columns)} FROM {source}")
        return 0
    same = [*panel.keys, "cutoff", panel.time]
    columns = [f"h.{name}" for name in (*same, "horizon", "forecast", *BOUNDS)]
    reported = " AND ".join(f"s.{name} = h.{name}" for name in (*panel.keys, panel.time))
    naive = " AND ".join(f"n.{name} = h.{name}" for name in same)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {OUTCOMES} AS SELECT {', '.join(columns)}, n.forecast AS naive, "
        f"s.{panel.target} AS actual FROM {HISTORY} AS h JOIN cleaned.{panel.series.name} AS s ON {reported} "
        f"LEFT JOIN {HISTORY} AS n ON {naive} AND n.role = '{BASELINE}' "
        f"WHERE h.role = '{CHAMPION}' AND s.{panel.target} IS NOT NULL AND s.t <= $last AND s.t > $last - $h",
        {"last": last, "h": panel.horizon},
    )
    return int(con.execute(f"SELECT count(*) FROM {OUTCOMES}").fetchall()[0][0])


def by_horizon(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """`horizon`, `wape`, `wape_seasonal_naive`, `bias`, `rows` over all outcomes."""
    return con.execute(
        f"SELECT horizon, {_share_of('abs(forecast - actual)')} AS wape, "
        f"{_share_of('abs(naive - actual)')} AS wape_seasonal_naive, "
        f"{_share_of('forecast - actual')} AS bias, count(*) AS rows "
        f"FROM {OUTCOMES} GROUP BY horizon ORDER BY horizon"
    ).df()


def _share_of(error: str) -> str:
    """SQL for the sum of an error as a share of what was reported; NULL where an error is not known."""
    known = f"count(*) = count({error})"
    return f"CASE WHEN {known} THEN sum({error}) / nullif(sum(abs(actual)), 0) END"


def errors(con: duckdb.DuckDBPyConnection) -> Distribution | None:
    """How errors are distributed, as shares of the series' usual value; None where there is none.

    The usual value is the mean of what the series reported in these periods; series of zeros do not count.
    """
    low, width, bins = ERROR_EDGES[0], ERROR_EDGES[1] - ERROR_EDGES[0], len(ERROR_EDGES) - 1
    place = f"CAST(greatest(0, least({bins - 1}, floor((error - $low) / $width))) AS INTEGER)"
    usual = "nullif(avg(abs(actual)) OVER (PARTITION BY {keys}), 0)"
    keys = ", ".join(_keys(con))
    relative = f"SELECT forecast, naive, actual, {usual.format(keys=keys)} AS usual FROM {OUTCOMES}"
    both = (
        f"SELECT 'own' AS who, (forecast - actual) / usual AS error FROM ({relative}) "
        f"UNION ALL SELECT 'naive', (naive - actual) / usual FROM ({relative})"
    )
    found = con.execute(
        f"SELECT who, {place} AS bin, count(*) AS rows FROM ({both}) WHERE error IS NOT NULL GROUP BY ALL",
        {"low": float(low), "width": float(width)},
    ).fetchall()
    shares = {who: np.zeros(bins) for who in ("own", "naive")}
    for who, place_, rows in found:
        shares[who][place_] = rows
    if not shares["own"].sum():
        return None
    own, naive = (list(shares[who] / max(1.0, shares[who].sum())) for who in ("own", "naive"))
    return Distribution("errors", list(ERROR_EDGES), own, naive)


def _keys(con: duckdb.DuckDBPyConnection) -> Sequence[str]:
    """The series keys: the columns before the cutoff."""
    names = [row[0] for row in con.execute(f"DESCRIBE {OUTCOMES}").fetchall()]
    return names[: names.index("cutoff")]


def zones(con: duckdb.DuckDBPyConnection) -> pd.DataFrame | None:
    """Where outcomes fell among the bounds: `zone`, `share`, `expected`; None where nothing has bounds."""
    bounded = f"FROM {OUTCOMES} WHERE lower_80 IS NOT NULL AND NOT isnan(lower_80)"
    counts = ", ".join(f"count(*) FILTER ({where})" for where, _ in ZONES.values())
    rows, *found = con.execute(f"SELECT count(*), {counts} {bounded}").fetchall()[0]
    if not rows:
        return None
    expected = [share for _, share in ZONES.values()]
    return pd.DataFrame({"zone": list(ZONES), "share": [n / rows for n in found], "expected": expected})


def worst_series(con: duckdb.DuckDBPyConnection) -> Records:
    """The series that add most to the error, and how much each of them adds (`of_error`)."""
    keys, error = ", ".join(_keys(con)), "sum(abs(forecast - actual))"
    return records(
        con,
        f"SELECT {keys}, {_share_of('abs(forecast - actual)')} AS wape, "
        f"{_share_of('abs(naive - actual)')} AS wape_seasonal_naive, "
        f"{_share_of('forecast - actual')} AS bias, {error} / nullif(sum({error}) OVER (), 0) AS of_error, "
        f"count(*) AS rows FROM {OUTCOMES} GROUP BY {keys} ORDER BY of_error DESC NULLS LAST, {keys} "
        f"LIMIT {WORST}",
    )


def total_forecasts(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoffs: int) -> pd.DataFrame:
    """Sums of the champions' forecasts: `cutoff`, `period`, `value`, of so many newest cutoffs."""
    if not has_table(con, HISTORY):
        return pd.DataFrame({"cutoff": [], "period": [], "value": []})
    newest = f"SELECT DISTINCT cutoff FROM {HISTORY} ORDER BY cutoff DESC LIMIT {cutoffs}"
    return con.execute(
        f"SELECT CAST(cutoff AS TIMESTAMP) AS cutoff, CAST({panel.time} AS TIMESTAMP) AS period, "
        f"sum(forecast) AS value FROM {HISTORY} WHERE role = '{CHAMPION}' AND cutoff IN ({newest}) "
        "GROUP BY ALL ORDER BY 1, 2"
    ).df()


def total_reported(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> pd.DataFrame:
    """Sums as reported over the last year: `period`, `value`."""
    values: dict[str, Any] = {"last": last, "from": last - panel.frequency.season}
    return con.execute(
        f"SELECT CAST({panel.time} AS TIMESTAMP) AS period, sum({panel.target}) AS value "
        f"FROM cleaned.{panel.series.name} WHERE t > $from AND t <= $last GROUP BY ALL ORDER BY period",
        values,
    ).df()
