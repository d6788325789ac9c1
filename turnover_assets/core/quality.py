"""Quality: rules that a table must keep, each one SQL figure with a bound, and their figures over time.

What belongs here: the rules as data, evaluating them on a connection, and keeping what they gave. What does
not: Dagster's checks (defs/checks.py), the rules of single rows (cleaning.py).
"""

import duckdb

CHECKS = "reports.checks"
HISTORY_QUERY = f"SELECT * FROM {CHECKS} ORDER BY evaluated_at, asset, check_name"


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the table of the figures of past evaluations, if it is not there."""
    con.execute(
        f"CREATE TABLE IF NOT EXISTS {CHECKS} (evaluated_at TIMESTAMPTZ, run_id VARCHAR, "
        "landed_version VARCHAR, asset VARCHAR, check_name VARCHAR, severity VARCHAR, figure DOUBLE, "
        "at_least DOUBLE, at_most DOUBLE, passed BOOLEAN)"
    )
