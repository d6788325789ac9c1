"""The tables of schema monitoring: their columns, how a cutoff's rows are replaced, and which are published.

What belongs here: what every other module here needs to keep its rows. What does not: making rows.

The tables outlive every run, and are carried over when the warehouse is rebuilt: no landed file can tell
again what was published when, nor what was known then.
"""

from collections.abc import Iterable
from datetime import date

import duckdb
import pandas as pd

from turnover_assets.panel import PanelSpec

MEASURES = "monitoring.measures"
ACCURACY = "monitoring.accuracy"
STABILITY = "monitoring.stability"
DRIFT = "monitoring.drift"
INPUTS = "monitoring.inputs"
MISSING_SERIES = "monitoring.missing_series"
PROMISES = "monitoring.promises"
JUDGED = "monitoring.judged_cutoffs"
PUBLISHED = ("measures", "monitored_accuracy", "stability", "drift", "inputs", "missing_series")
KEPT_CUTOFFS = 520  # newest cutoffs of which rows are kept: ten years of weeks

_COLUMNS = {
    MEASURES: "measure VARCHAR, level VARCHAR, member VARCHAR, cutoff DATE, value DOUBLE",
    ACCURACY: "cutoff DATE, horizon INTEGER, level VARCHAR, member VARCHAR, basis VARCHAR, "
    "model_version INTEGER, rows BIGINT, periods INTEGER, wape DOUBLE, bias DOUBLE, tracking_signal DOUBLE, "
    "coverage_80 DOUBLE, coverage_95 DOUBLE, wape_seasonal_naive DOUBLE, wape_promised DOUBLE, "
    "coverage_80_promised DOUBLE, coverage_95_promised DOUBLE, updated_at TIMESTAMPTZ",
    STABILITY: "cutoff DATE, previous_cutoff DATE, {time} DATE, level VARCHAR, member VARCHAR, "
    "forecast DOUBLE, previous_forecast DOUBLE, change DOUBLE, shift DOUBLE",
    DRIFT: "cutoff DATE, kind VARCHAR, name VARCHAR, level VARCHAR, member VARCHAR, psi DOUBLE, "
    "psi_limit DOUBLE, wasserstein DOUBLE, rows BIGINT, reference_rows BIGINT, mean DOUBLE, "
    "reference_mean DOUBLE, missing_share DOUBLE, reference_missing_share DOUBLE, is_drifted BOOLEAN",
    INPUTS: "cutoff DATE, run_id VARCHAR, made_at TIMESTAMPTZ, series_expected BIGINT, "
    "series_missing BIGINT, missing_share DOUBLE, rows_landed BIGINT, rows_rejected BIGINT, "
    "quarantine_rate DOUBLE, files_accepted BIGINT, files_refused BIGINT, bytes BIGINT, last_file_no INTEGER",
    MISSING_SERIES: "cutoff DATE, {keys}, last_reported DATE",
    PROMISES: "model_version INTEGER, basis VARCHAR, level VARCHAR, member VARCHAR, horizon INTEGER, "
    "wape DOUBLE, wape_seasonal_naive DOUBLE, coverage_80 DOUBLE, coverage_95 DOUBLE",
    JUDGED: "cutoff DATE, outcomes VARCHAR, forecasts VARCHAR",
}
_KEY_TYPES = {"integer": "BIGINT", "number": "DOUBLE", "text": "VARCHAR", "flag": "BOOLEAN"}


def prepare(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    """Make the tables that are not there yet, empty."""
    keys = ", ".join(f"{key.name} {_KEY_TYPES[key.type]}" for key in panel.series.keys)
    for table, columns in _COLUMNS.items():
        con.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns.format(time=panel.time, keys=keys)})")


def replace_cutoffs(
    con: duckdb.DuckDBPyConnection, table: str, frame: pd.DataFrame, cutoffs: Iterable[date]
) -> None:
    """Put rows in place of those of some cutoffs, and let go of cutoffs beyond the newest KEPT_CUTOFFS.

    Args:
        con: The connection.
        table: One of the tables above that has a cutoff.
        frame: The rows; columns by name.
        cutoffs: The cutoffs whose rows go, labels.
    """
    con.execute(f"DELETE FROM {table} WHERE cutoff IN (SELECT unnest(CAST(? AS DATE[])))", [list(cutoffs)])
    if len(frame):
        con.register("rows_to_keep", frame)
        con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows_to_keep")
        con.unregister("rows_to_keep")
    con.execute(
        f"DELETE FROM {table} WHERE cutoff < (SELECT min(cutoff) FROM (SELECT DISTINCT cutoff FROM {table} "
        "ORDER BY cutoff DESC LIMIT ?))",
        [KEPT_CUTOFFS],
    )


def published_queries(panel: PanelSpec) -> dict[str, str]:
    """The published tables: export name to the SQL that makes it."""
    queries = (
        f"SELECT * FROM {MEASURES} ORDER BY cutoff, measure, level, member",
        f"SELECT * FROM {ACCURACY} ORDER BY cutoff, basis, level, member, horizon",
        f"SELECT * FROM {STABILITY} ORDER BY cutoff, {panel.time}, level, member",
        f"SELECT * FROM {DRIFT} ORDER BY cutoff, kind, name, level, member",
        f"SELECT * FROM {INPUTS} ORDER BY made_at",
        f"SELECT * FROM {MISSING_SERIES} ORDER BY cutoff, {', '.join(panel.keys)}",
    )
    return dict(zip(PUBLISHED, queries, strict=True))
