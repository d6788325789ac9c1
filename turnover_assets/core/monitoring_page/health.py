"""What came in and how the work went: missing series, rejected rows, refused files, runs.

What belongs here: the content of the page's last sections. What does not: counting these (core/monitoring/).
"""

from datetime import date
from typing import Any

import duckdb

from turnover_assets.core.monitoring.tables import INPUTS, MISSING_SERIES
from turnover_assets.core.monitoring_page import pictures
from turnover_assets.core.run_records import RUNS
from turnover_assets.core.tables import has_table
from turnover_assets.core.templating import Records, records
from turnover_assets.panel import PanelSpec

STEPS = "monitoring.steps"
PUBLISHINGS_SHOWN, LISTED = 60, 12
MISSING_LISTED = 20
RUNS_SHOWN, RUNS_LISTED = 40, 12


def inputs(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date) -> dict[str, Any]:
    """What the section on data quality says; `newest` is None where nothing was counted yet."""
    table = con.execute(f"SELECT * FROM {INPUTS} ORDER BY made_at DESC LIMIT {PUBLISHINGS_SHOWN}").df()
    shares = table[::-1].rename(columns={"missing_share": "missing", "quarantine_rate": "rejected"})
    drawn = shares.drop_duplicates("cutoff", keep="last")
    missing = records(
        con,
        f"SELECT *, count(*) OVER () AS count FROM {MISSING_SERIES} WHERE cutoff = ? "
        f"ORDER BY last_reported DESC NULLS LAST, {', '.join(panel.keys)} LIMIT {MISSING_LISTED}",
        [cutoff],
    )
    listed = records(con, f"SELECT * FROM {INPUTS} ORDER BY made_at DESC LIMIT {LISTED}")
    return {
        "newest": listed[0] if listed else None,
        "publishings": listed,
        "over_time": pictures.shares_over_time(drawn, ["missing", "rejected"]) if len(drawn) else None,
        "missing": missing,
        "missing_count": missing[0]["count"] if missing else 0,
    }


def runs(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What the section on runs says: the newest ones, and the steps of the newest that has any."""
    if not (has_table(con, RUNS) and has_table(con, STEPS)):
        return {"runs": [], "durations": None, "steps": [], "longest": 0.0}
    table = con.execute(f"SELECT * FROM {RUNS} ORDER BY started_at DESC NULLS LAST LIMIT {RUNS_SHOWN}").df()
    drawn = table[table["seconds"].notna()][::-1].reset_index(drop=True)
    drawn["failed"] = drawn["status"].isin(["FAILURE", "CANCELED"])
    steps = _steps(con)
    return {
        "runs": records(con, f"SELECT * FROM {RUNS} ORDER BY started_at DESC NULLS LAST LIMIT {RUNS_LISTED}"),
        "durations": pictures.durations(drawn) if len(drawn) else None,
        "steps": steps,
        "longest": max((step["seconds"] or 0.0 for step in steps), default=0.0),
    }


def _steps(con: duckdb.DuckDBPyConnection) -> Records:
    """The steps of the newest run that has more than one, the longest first."""
    newest = (
        f"SELECT run_id FROM {STEPS} JOIN {RUNS} USING (run_id) GROUP BY run_id HAVING count(*) > 1 "
        "ORDER BY max(started_at) DESC LIMIT 1"
    )
    return records(
        con, f"SELECT * FROM {STEPS} WHERE run_id = ({newest}) ORDER BY seconds DESC NULLS LAST, asset"
    )
