"""The profile page: one HTML file that a person opens without a network.

What belongs here: what the page says, as SQL over profiles and cleaned tables, and filling its template.
What does not: the profiles (profiling.py), the pictures (pictures.py), writing the file (storage/pages.py).

Whatever came from files or from a steward is escaped by the template; pictures hold none of it.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core import pictures
from turnover_assets.core.cleaning import REJECTED
from turnover_assets.core.profiling import BY_FILE, BY_PERIOD, PROFILE, ProfiledRun, existing_tables
from turnover_assets.core.restatements import RESTATEMENTS
from turnover_assets.core.templating import Records, records, template
from turnover_assets.panel import PanelSpec

LONGEST_LIST = 200
SHOWN = 20
EXAMPLES = 3
PLOTS = 20
RUNS_SHOWN = 12
BINS = 64
GROUPS = 400  # rows of pixels in the map of gaps


def profile_page(con: duckdb.DuckDBPyConnection, panel: PanelSpec, run: ProfiledRun, release: str) -> str:
    """The page on what is in the cleaned tables.

    Args:
        con: Connection with the cleaned tables and the profiles of this run.
        panel: The panel.
        run: The run that made them.
        release: Version of this package.

    Returns:
        HTML that loads nothing from anywhere.
    """
    periods = con.execute(f"SELECT * FROM {BY_PERIOD} ORDER BY t").df()
    there = existing_tables(con)
    return template("profile").render(
        panel=panel,
        run=run,
        release=release,
        headline=_headline(con, panel),
        findings=_findings(con, panel) if "cleaned.findings" in there else None,
        adjustments=_adjustments(con) if "cleaned.adjustments" in there else [],
        totals=pictures.totals(periods) if len(periods) else None,
        coverage=pictures.coverage(periods) if len(periods) else None,
        incomplete=records(
            con, f"SELECT * FROM {BY_PERIOD} WHERE coverage < 1 ORDER BY coverage, t LIMIT {SHOWN}"
        ),
        gap_map=_gap_map(con, panel),
        gaps=_largest_gaps(con, panel),
        distribution=_distribution(con, panel),
        restatements=records(
            con,
            f"SELECT * FROM {RESTATEMENTS} ORDER BY abs(new_value - old_value) DESC, "
            f"{', '.join(panel.keys)}, {panel.time}, new_file_no LIMIT {SHOWN}",
        ),
        rejected=_rejected(con),
        files=records(con, f"SELECT * FROM {BY_FILE} ORDER BY file_no DESC LIMIT {LONGEST_LIST}"),
        tables=_tables(con, run),
        runs=_runs(con, panel),
        longest=LONGEST_LIST,
        plots=PLOTS,
    )


def _headline(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> dict[str, Any]:
    series = f"cleaned.{panel.series.name}"
    return records(
        con,
        f"SELECT count(*) AS rows, count(DISTINCT ({', '.join(panel.keys)})) AS series, "
        f"min({panel.time}) AS first, max({panel.time}) AS last, sum({panel.target}) AS total, "
        f"sum({panel.target}_adjusted) AS total_adjusted, "
        f"(SELECT count(*) FROM {REJECTED} WHERE action = 'row rejected') AS rejected, "
        f"(SELECT count(*) FROM {RESTATEMENTS}) AS restated, (SELECT count(*) FROM {BY_FILE}) AS files, "
        f"(SELECT coverage FROM {BY_PERIOD} ORDER BY t DESC LIMIT 1) AS coverage, "
        f"count(adjustment_id) AS adjusted FROM {series}",
    )[0]


def _findings(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> Records:
    """The findings, the strongest first, each of the first PLOTS with a picture."""
    found = records(
        con,
        "SELECT * FROM cleaned.findings ORDER BY strength DESC NULLS LAST, since, finding_id "
        f"LIMIT {LONGEST_LIST}",
    )
    for finding in found:
        finding["picture"] = None
    drawn = [(one, history) for one in found[:PLOTS] if len(history := _member_history(con, panel, one))]
    wanted = [(table, one["since"], None if one["ongoing"] else one["until"]) for one, table in drawn]
    for (finding, _), picture in zip(drawn, pictures.findings(wanted), strict=True):
        finding["picture"] = picture
    return found


def _member_history(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, finding: Mapping[str, Any]
) -> pd.DataFrame:
    """Reported and adjusted values of the member concerned; no rows where the panel has no such level."""
    members = json.loads(finding["members"])
    source = f"cleaned.{panel.series.name} AS p"
    known = {*panel.keys}
    for table in panel.static:
        names = {column.name for column in table.columns}
        known |= names
        if names & members.keys():
            source += f" LEFT JOIN cleaned.{table.name} USING ({', '.join(table.keys)})"
    if not members or not members.keys() <= known:
        return pd.DataFrame()
    return con.execute(
        f"SELECT CAST({panel.time} AS TIMESTAMP) AS period, sum({panel.target}) AS reported, "
        f"sum({panel.target}_adjusted) AS adjusted FROM {source} "
        f"WHERE {' AND '.join(f'{name} = ?' for name in members)} GROUP BY {panel.time} ORDER BY period",
        list(members.values()),
    ).df()


def _adjustments(con: duckdb.DuckDBPyConnection) -> Records:
    return records(
        con,
        "SELECT * FROM cleaned.adjustments ORDER BY status, since, selector, adjustment_id "
        f"LIMIT {LONGEST_LIST}",
    )


def _rejected(con: duckdb.DuckDBPyConnection) -> Records:
    """Rejected rows by rule, each with a few examples."""
    rules = records(
        con,
        f"SELECT table_name, rule, action, count(*) AS rows FROM {REJECTED} "
        f"GROUP BY ALL ORDER BY rows DESC, table_name, rule LIMIT {LONGEST_LIST}",
    )
    for rule in rules:
        rule["examples"] = records(
            con,
            f"SELECT file, line, message, raw_values FROM {REJECTED} "
            f"WHERE table_name = ? AND rule = ? AND action = ? ORDER BY file, line LIMIT {EXAMPLES}",
            [rule["table_name"], rule["rule"], rule["action"]],
        )
    return rules


def _tables(con: duckdb.DuckDBPyConnection, run: ProfiledRun) -> dict[str, Records]:
    """The profile of this run, columns by table."""
    tables: dict[str, Records] = {}
    for row in records(con, f"SELECT * FROM {PROFILE} WHERE run_id = ? ORDER BY rowid", [run.run_id]):
        tables.setdefault(row["table_name"], []).append(row)
    return tables


def _runs(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> Records:
    """The newest runs: the series table's rows and totals, and what was rejected and restated."""
    series, target = f"table_name = 'cleaned.{panel.series.name}'", panel.target
    return records(
        con,
        f"SELECT made_at, data_version, max(rows) FILTER ({series}) AS rows, "
        f"max(sum) FILTER ({series} AND column_name = '{target}') AS total, "
        f"max(sum) FILTER ({series} AND column_name = '{target}_adjusted') AS total_adjusted, "
        f"max(rows) FILTER (table_name = '{REJECTED}') AS rejected, "
        f"max(rows) FILTER (table_name = '{RESTATEMENTS}') AS restated "
        f"FROM {PROFILE} GROUP BY run_id, made_at, data_version ORDER BY made_at DESC LIMIT {RUNS_SHOWN}",
    )


def _largest_gaps(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> Records:
    keys, name = ", ".join(panel.keys), panel.series.name
    return records(
        con,
        f"SELECT {keys}, {panel.time} AS reported, next, missing FROM (SELECT {keys}, t, {panel.time}, "
        f"lead({panel.time}) OVER life AS next, lead(t) OVER life - t - 1 AS missing "
        f"FROM cleaned.{name} WINDOW life AS (PARTITION BY {keys} ORDER BY t)) "
        f"WHERE missing > 0 ORDER BY missing DESC, t DESC, {keys} LIMIT {SHOWN}",
    )


def _gap_map(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> str | None:
    """The map of gaps as the address of a picture; series in the order of their keys, in GROUPS at most."""
    keys, name = ", ".join(panel.keys), panel.series.name
    con.execute(
        "CREATE OR REPLACE TEMP TABLE lives AS "
        f"SELECT *, ntile({GROUPS}) OVER (ORDER BY {keys}) - 1 AS place "
        f"FROM (SELECT {keys}, min(t) AS born, max(t) AS ended FROM cleaned.{name} GROUP BY {keys})"
    )
    first, last, groups = con.execute("SELECT min(born), max(ended), max(place) + 1 FROM lives").fetchall()[0]
    if groups is None:
        return None
    alive = np.zeros((groups, last - first + 2))
    reported = np.zeros((groups, last - first + 1))
    moves = "SELECT place, born, 1 FROM lives UNION ALL SELECT place, ended + 1, -1 FROM lives"
    for counts, sql in (
        (alive, f"SELECT place, born - $first, sum(m) FROM ({moves}) AS moved(place, born, m) GROUP BY ALL"),
        (
            reported,
            f"SELECT place, t - $first, count(*) FROM cleaned.{name} JOIN lives USING ({keys}) GROUP BY ALL",
        ),
    ):
        found = np.array(con.execute(sql, {"first": first}).fetchall(), dtype=np.int64)
        counts[found[:, 0], found[:, 1]] = found[:, 2]
    con.execute("DROP TABLE lives")
    image = pictures.gaps(alive.cumsum(axis=1)[:, :-1], reported)
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _distribution(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> str | None:
    """Rows by amount, reported and adjusted, in bins that are even in asinh(amount / scale)."""
    series, target = f"cleaned.{panel.series.name}", panel.target
    scale, least, most = con.execute(
        f"SELECT coalesce(median(abs(y)) FILTER (y <> 0), 1), min(y), max(y) FROM (SELECT {target} AS y "
        f"FROM {series} UNION ALL SELECT {target}_adjusted FROM {series}) WHERE isfinite(y)"
    ).fetchall()[0]
    if least is None:
        return None
    low, high = float(np.arcsinh(least / scale)), float(np.arcsinh(most / scale))
    width = (high - low) / BINS or 1.0
    place = f"CAST(least({BINS - 1}, floor((asinh(y / $scale) - $low) / $width)) AS INTEGER)"
    table = con.execute(
        f"SELECT $low + i * $width AS low, $width AS width, coalesce(reported, 0) AS reported, "
        f"coalesce(adjusted, 0) AS adjusted FROM range({BINS}) AS bins(i) LEFT JOIN (SELECT {place} AS i, "
        f"count(*) FILTER (kind = 'reported') AS reported, count(*) FILTER (kind = 'adjusted') AS adjusted "
        f"FROM (SELECT {target} AS y, 'reported' AS kind FROM {series} UNION ALL "
        f"SELECT {target}_adjusted, 'adjusted' FROM {series}) WHERE isfinite(y) GROUP BY ALL) USING (i) "
        "ORDER BY i",
        {"scale": scale, "low": low, "width": width},
    ).df()
    return pictures.distribution(table, scale)
