"""Records of runs: how long each run and each of its steps took, what it was for, how it ended.

What belongs here: the tables monitoring.runs and monitoring.steps. What does not: reading Dagster's event log
(defs/run_records.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

RUNS = "monitoring.runs"
STEPS = "monitoring.steps"
RUNS_KEPT = 2_000  # newest
Records = Sequence[Mapping[str, Any]]
RUN_COLUMNS = {
    "run_id": "VARCHAR",
    "job": "VARCHAR",
    "status": "VARCHAR",
    "cause": "VARCHAR",
    "attempt": "INTEGER",
    "started_at": "TIMESTAMPTZ",
    "ended_at": "TIMESTAMPTZ",
    "seconds": "DOUBLE",
    "warnings": "INTEGER",
}
STEP_COLUMNS = {
    "run_id": "VARCHAR",
    "step": "VARCHAR",
    "asset": "VARCHAR",
    "status": "VARCHAR",
    "seconds": "DOUBLE",
    "rows": "BIGINT",
    "bytes": "BIGINT",
}


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the tables where they are missing."""
    for table, columns in ((RUNS, RUN_COLUMNS), (STEPS, STEP_COLUMNS)):
        listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        con.execute(f"CREATE TABLE IF NOT EXISTS {table} ({listed})")


def known_runs(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Ids of the runs on record."""
    return {str(row[0]) for row in con.execute(f"SELECT run_id FROM {RUNS}").fetchall()}


def keep_runs(con: duckdb.DuckDBPyConnection, runs: Records, steps: Records) -> None:
    """Put runs that have ended on record; the newest RUNS_KEPT stay.

    Args:
        con: Connection with the tables.
        runs: One for each run that is not on record, with RUN_COLUMNS: `cause` is what it was made for,
            `attempt` counts from 1, `seconds` from its start to its end, `warnings` in its log.
        steps: One for each step and asset made by it, with STEP_COLUMNS: `asset` is missing where a step
            makes none; assets made by one step have its `seconds` each; `rows` and `bytes` where known.
    """
    for table, rows, columns in ((RUNS, runs, RUN_COLUMNS), (STEPS, steps, STEP_COLUMNS)):
        places = ", ".join("?" for _ in columns)
        values = [[row.get(name) for name in columns] for row in rows]
        if values:
            con.executemany(f"INSERT INTO {table} VALUES ({places})", values)
    con.execute(
        f"DELETE FROM {RUNS} WHERE run_id NOT IN "
        f"(SELECT run_id FROM {RUNS} ORDER BY ended_at DESC, run_id LIMIT {RUNS_KEPT})"
    )
    con.execute(f"DELETE FROM {STEPS} WHERE run_id NOT IN (SELECT run_id FROM {RUNS})")
