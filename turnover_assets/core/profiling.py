"""Profiles: what each table holds, by column, by landed file and by period.

What belongs here: the tables reports.profile (kept over time), reports.profile_by_file and
reports.profile_by_period (of the newest run), as SQL. What does not: the page that shows them (pages.py),
rules that judge them (quality.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from turnover_assets.core.calendar import label_sql
from turnover_assets.core.cleaning import REJECTED
from turnover_assets.core.restatements import RESTATEMENTS
from turnover_assets.panel import PanelSpec

PROFILE = "reports.profile"
BY_FILE = "reports.profile_by_file"
BY_PERIOD = "reports.profile_by_period"
RUNS_KEPT = 200
# Numbers that place a row, and measure nothing.
PLACES = frozenset({"t", "line", "file_no", "old_line", "old_file_no", "new_line", "new_file_no"})
NUMBERS = ("DOUBLE", "FLOAT", "DECIMAL", "BIGINT", "INTEGER", "HUGEINT")


@dataclass(frozen=True)
class ProfiledRun:
    """What a profile belongs to.

    Attributes:
        run_id: The run; a profile made again for it replaces the first.
        made_at: When, with time zone.
        data_version: Fingerprint of the cleaned values.
    """

    run_id: str
    made_at: datetime
    data_version: str


def keep_profile(con: duckdb.DuckDBPyConnection, panel: PanelSpec, run: ProfiledRun) -> None:
    """Profile all cleaned tables and the raw series table; the newest RUNS_KEPT runs are kept.

    reports.profile has a row for each run, table and column: `rows`, `distinct_keys` (of the table),
    `nulls`, `distinct_values` (of keys only), and for measures `sum`, `mean`, `min`, `max` in their units.
    """
    con.execute(
        f"CREATE TABLE IF NOT EXISTS {PROFILE} (run_id VARCHAR, made_at TIMESTAMPTZ, data_version VARCHAR, "
        "table_name VARCHAR, column_name VARCHAR, rows BIGINT, distinct_keys BIGINT, nulls BIGINT, "
        "distinct_values BIGINT, sum DOUBLE, mean DOUBLE, min DOUBLE, max DOUBLE)"
    )
    con.execute(f"DELETE FROM {PROFILE} WHERE run_id = ?", [run.run_id])
    for table, keys in _profiled(con, panel).items():
        con.execute(
            f"INSERT INTO {PROFILE} SELECT ?, ?, ?, ?, unnest(columns, recursive := true) "
            f"FROM ({_profile_sql(con, table, keys)})",
            [run.run_id, run.made_at, run.data_version, table],
        )
    con.execute(
        f"DELETE FROM {PROFILE} WHERE run_id NOT IN (SELECT run_id FROM {PROFILE} "
        "GROUP BY run_id ORDER BY max(made_at) DESC, run_id LIMIT ?)",
        [RUNS_KEPT],
    )
    con.execute(f"CREATE OR REPLACE TABLE {BY_FILE} AS {_by_file_sql(panel)}")
    con.execute(f"CREATE OR REPLACE TABLE {BY_PERIOD} AS {_by_period_sql(panel)}")


def newest_run(con: duckdb.DuckDBPyConnection) -> ProfiledRun:
    """The run that was profiled last."""
    found = con.execute(
        f"SELECT run_id, made_at, data_version FROM {PROFILE} ORDER BY made_at DESC LIMIT 1"
    ).fetchall()[0]
    return ProfiledRun(*found)


def existing_tables(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of all tables, as schema.table."""
    found = con.execute("SELECT table_schema || '.' || table_name FROM information_schema.tables").fetchall()
    return {name for (name,) in found}


def _profiled(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> dict[str, Sequence[str]]:
    """The tables that there are, each with its keys."""
    series = (*panel.keys, panel.time)
    keys: dict[str, Sequence[str]] = {f"raw.{panel.series.name}": series}
    keys |= {f"cleaned.{static.name}": static.keys for static in panel.static}
    keys |= {f"cleaned.{table.name}": (*table.keys, panel.time) for table in panel.covariates}
    keys |= {
        f"cleaned.{panel.series.name}": series,
        REJECTED: ("table_name", "file", "line", "rule"),
        RESTATEMENTS: (*series, "new_file_no"),
        "cleaned.findings": ("finding_id",),
        "cleaned.adjustments": ("adjustment_id",),
    }
    there = existing_tables(con)
    return {table: key for table, key in keys.items() if table in there}


def _profile_sql(con: duckdb.DuckDBPyConnection, table: str, keys: Sequence[str]) -> str:
    """One pass over a table: a list with a structure for each column."""
    columns = con.execute(f"DESCRIBE {table}").fetchall()
    facts = []
    for name, kind, *_ in columns:
        measured = str(kind).startswith(NUMBERS) and name not in PLACES and name not in keys
        measures = [f"{f}({name})" for f in ("sum", "avg", "min", "max")] if measured else ["NULL"] * 4
        total, mean, least, most = (f"CAST({measure} AS DOUBLE)" for measure in measures)
        distinct = f"count(DISTINCT {name})" if name in keys else "CAST(NULL AS BIGINT)"
        facts.append(
            f"{{'column_name': '{name}', 'rows': count(*), "
            f"'distinct_keys': count(DISTINCT ({', '.join(keys)})), 'nulls': count(*) - count({name}), "
            f"'distinct_values': {distinct}, 'sum': {total}, 'mean': {mean}, 'min': {least}, 'max': {most}}}"
        )
    return f"SELECT unnest([{', '.join(facts)}]) AS columns FROM {table}"


def _by_file_sql(panel: PanelSpec) -> str:
    """Each accepted file with what became of its rows; those of the series table with their values.

    Rejected rows are listed by name, so where two contents came under one name, theirs are not known.
    """
    parts = [
        f"SELECT '{name}' AS table_name, file_no, count(*) AS rows_in_force, "
        + (
            f"count(DISTINCT ({', '.join(panel.keys)})) AS series, min({panel.time}) AS first_period, "
            f"max({panel.time}) AS last_period, sum({panel.target}) AS sum, avg({panel.target}) AS mean, "
            f"min({panel.target}) AS min, max({panel.target}) AS max"
            if name == panel.series.name
            else "NULL, NULL, NULL, NULL, NULL, NULL, NULL"
        )
        + f" FROM cleaned.{name} GROUP BY file_no"
        for name in [panel.series.name, *(table for table in panel.tables if table != panel.series.name)]
    ]
    return f"""
        WITH kept AS ({" UNION ALL ".join(parts)}),
        turned_away AS (
          SELECT file, table_name, count(*) AS rows_rejected FROM {REJECTED}
          WHERE action = 'row rejected' GROUP BY ALL)
        SELECT f.file_no, f.name, f.table_name, f.landed_at, f.row_count AS rows_landed,
          coalesce(k.rows_in_force, 0) AS rows_in_force,
          CASE WHEN count(*) OVER (PARTITION BY f.name, f.table_name) = 1
            THEN coalesce(a.rows_rejected, 0) END AS rows_rejected,
          k.series, k.first_period, k.last_period, k.sum, k.mean, k.min, k.max
        FROM raw.files AS f
        LEFT JOIN kept AS k ON k.file_no = f.file_no AND k.table_name = f.table_name
        LEFT JOIN turned_away AS a ON a.file = f.name AND a.table_name = f.table_name
        WHERE f.status = 'accepted' ORDER BY f.file_no"""


def _by_period_sql(panel: PanelSpec) -> str:
    """Each period between the first and the last; `expected` are the series whose life spans it."""
    keys, name, target = ", ".join(panel.keys), panel.series.name, panel.target
    return f"""
        WITH lives AS (SELECT min(t) AS born, max(t) AS ended FROM cleaned.{name} GROUP BY {keys}),
        periods AS (
          SELECT unnest(range(CAST(min(born) AS BIGINT), max(ended) + 1)) AS t FROM lives),
        moves AS (
          SELECT t, sum(move) AS move FROM (
            SELECT born AS t, 1 AS move FROM lives UNION ALL SELECT ended + 1, -1 FROM lives) GROUP BY t),
        expected AS (
          SELECT t, CAST(sum(coalesce(move, 0)) OVER (ORDER BY t) AS BIGINT) AS expected
          FROM periods LEFT JOIN moves USING (t)),
        reported AS (
          SELECT t, count(*) AS rows, sum({target}) AS sum, avg({target}) AS mean,
            min({target}) AS min, max({target}) AS max, sum({target}_adjusted) AS sum_adjusted,
            count(*) FILTER ({target} = 0) AS zeros, count(*) FILTER ({target} < 0) AS negatives
          FROM cleaned.{name} GROUP BY t)
        SELECT CAST(t AS INTEGER) AS t, {label_sql(panel, "t")} AS period,
          coalesce(rows, 0) AS rows, expected, coalesce(rows, 0) / nullif(expected, 0) AS coverage,
          sum, mean, min, max, sum_adjusted, coalesce(zeros, 0) AS zeros, coalesce(negatives, 0) AS negatives
        FROM expected LEFT JOIN reported USING (t) ORDER BY t"""
