"""From a model and scoring rows to the published forecast table.

What belongs here: putting forecasts, bounds and keys together, and judging whether they are complete.
"""

import duckdb
import pandas as pd

from turnover_assets.core.calendar import label_of
from turnover_assets.core.intervals import BOUNDS, Intervals
from turnover_assets.core.models import Candidate, Rows
from turnover_assets.panel import PanelSpec


def forecast_table(
    panel: PanelSpec, candidate: Candidate, intervals: Intervals, rows: Rows, series: pd.DataFrame
) -> pd.DataFrame:
    """Forecasts with bounds for scoring rows.

    Args:
        panel: The panel.
        candidate: A fitted model.
        intervals: Its calibrated residual quantiles.
        rows: n scoring rows.
        series: `series_id` and the series keys.

    Returns:
        A row for each scoring row: the series keys, `cutoff`, the time column, `horizon`, `forecast` and
        the bounds (units of the target), ordered by keys and horizon.
    """
    predicted = candidate.predict(rows)
    if panel.series.target.nonnegative:
        predicted = predicted.clip(min=0.0)
    table = rows.identity[["series_id", "cutoff", "t", "horizon"]].copy()
    table["forecast"] = predicted
    bounds = intervals.bounds(rows, predicted, nonnegative=panel.series.target.nonnegative)
    table = pd.concat([table, bounds], axis=1).merge(series, on="series_id", validate="many_to_one")
    labels = {t: label_of(panel, int(t)) for t in {*table["t"].unique(), *table["cutoff"].unique()}}
    table[panel.time] = table["t"].map(labels)
    table["cutoff"] = table["cutoff"].map(labels)
    table = table.sort_values([*panel.keys, "horizon"]).reset_index(drop=True)
    return table[[*panel.keys, "cutoff", panel.time, "horizon", "forecast", *BOUNDS]]


def incomplete_series(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, newest: int, alive: int
) -> pd.DataFrame:
    """Series alive at the newest reported period that lack a forecast for some horizon; empty is well.

    Counted from the cleaned table, independently of how the scoring rows were made.
    """
    keys = ", ".join(panel.keys)
    return con.execute(
        f"WITH live AS (SELECT DISTINCT {keys} FROM cleaned.{panel.series.name} "
        "WHERE t <= $newest AND $newest - t < $alive), "
        f"made AS (SELECT {keys}, count(DISTINCT horizon) AS horizons FROM forecasts.latest "
        "WHERE forecast IS NOT NULL GROUP BY ALL) "
        f"SELECT {keys}, coalesce(horizons, 0) AS horizons FROM live LEFT JOIN made USING ({keys}) "
        "WHERE coalesce(horizons, 0) < $horizon ORDER BY ALL",
        {"alive": alive, "horizon": panel.horizon, "newest": newest},
    ).df()


def disordered_forecasts(con: duckdb.DuckDBPyConnection, *, nonnegative: bool) -> int:
    """Number of forecasts outside their own bounds, not finite, or below zero where that is not allowed."""
    below = "OR lower_95 < 0 " if nonnegative else ""
    counted = con.execute(
        "SELECT count(*) FROM forecasts.latest WHERE NOT coalesce(isfinite(forecast) AND "
        "lower_95 <= lower_80 AND lower_80 <= forecast AND forecast <= upper_80 AND upper_80 <= upper_95, "
        f"false) {below}"
    ).fetchall()
    return int(counted[0][0])
