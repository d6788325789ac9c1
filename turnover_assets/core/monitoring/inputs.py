"""What came in: expected series that are missing, rows turned away, files refused.

What belongs here: the tables monitoring.inputs and monitoring.missing_series. What does not: the rules that
rows and tables must keep (cleaning.py, table_rules.py).
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import duckdb
import pandas as pd

from turnover_assets.core.cleaning import REJECTED
from turnover_assets.core.monitoring.tables import INPUTS, MISSING_SERIES, replace_cutoffs
from turnover_assets.core.table_rules import expected_sql
from turnover_assets.panel import PanelSpec

FILES = "raw.files"


def missing_series(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int, alive: int) -> pd.DataFrame:
    """The series expected in the period `last`: keys, `last_reported` (label), `is_missing`.

    Expected are those that the check `coverage` expects; see table_rules.expected_sql.
    """
    keys = ", ".join(panel.keys)
    return con.execute(
        f"SELECT {keys}, max(c.{panel.time}) AS last_reported, max(c.t) < $newest AS is_missing "
        f"FROM ({expected_sql(panel)}) AS e JOIN cleaned.{panel.series.name} AS c USING ({keys}) "
        f"WHERE c.t <= $newest GROUP BY {keys} ORDER BY {keys}",
        {"newest": last, "alive": alive, "cycle": panel.frequency.cycle},
    ).df()


def landed_since(con: duckdb.DuckDBPyConnection, cutoff: date) -> dict[str, Any]:
    """Files and rows that landed since the last publishing for a cutoff before this one.

    Where nothing was published for an earlier cutoff, everything that ever landed counts.

    Returns:
        `rows_landed`, `rows_rejected`, `quarantine_rate` (NaN where no row landed), `files_accepted`,
        `files_refused`, `last_file_no`.
    """
    since = _last_file_before(con, cutoff)
    accepted, refused, rows, newest = con.execute(
        "SELECT count(*) FILTER (status = 'accepted'), count(*) FILTER (status = 'refused'), "
        "coalesce(sum(row_count) FILTER (status = 'accepted'), 0), coalesce(max(file_no), $since) "
        f"FROM {FILES} WHERE file_no > $since",
        {"since": since},
    ).fetchall()[0]
    rejected = con.execute(
        f"SELECT count(*) FROM {REJECTED} WHERE action = 'row rejected' AND file_no > ?", [since]
    ).fetchall()[0][0]
    return {
        "rows_landed": int(rows),
        "rows_rejected": rejected,
        "quarantine_rate": rejected / int(rows) if rows else float("nan"),
        "files_accepted": accepted,
        "files_refused": refused,
        "last_file_no": newest,
    }


def landed_digests(con: duckdb.DuckDBPyConnection, cutoff: date) -> list[str]:
    """The contents that landed since the last publishing for a cutoff before this one."""
    found = con.execute(
        f"SELECT digest FROM {FILES} WHERE status = 'accepted' AND file_no > ? ORDER BY file_no",
        [_last_file_before(con, cutoff)],
    ).fetchall()
    return [digest for (digest,) in found]


def _last_file_before(con: duckdb.DuckDBPyConnection, cutoff: date) -> int:
    """Number of the last file that the last publishing for an earlier cutoff knew; 0 where there was none."""
    found = con.execute(
        f"SELECT coalesce(max(last_file_no), 0) FROM {INPUTS} WHERE cutoff < ?", [cutoff]
    ).fetchall()
    return int(found[0][0])


def keep_inputs(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    cutoff: date,
    expected: pd.DataFrame,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Append a row to monitoring.inputs, and list the missing series of the cutoff in place of those before.

    Args:
        con: The connection.
        panel: The panel.
        cutoff: The newest cutoff (label).
        expected: As missing_series gives them.
        facts: What landed_since gives, with `run_id` and `bytes`.

    Returns:
        The row that was appended, by column.
    """
    lacking = expected[expected["is_missing"].astype(bool)]
    replace_cutoffs(
        con,
        MISSING_SERIES,
        lacking[[*panel.keys, "last_reported"]].assign(cutoff=cutoff),
        [cutoff],
    )
    row = {
        "cutoff": cutoff,
        "made_at": pd.Timestamp.now(tz="UTC"),
        "series_expected": len(expected),
        "series_missing": len(lacking),
        "missing_share": len(lacking) / len(expected) if len(expected) else float("nan"),
        **facts,
    }
    replace_cutoffs(con, INPUTS, pd.DataFrame([row]), [])
    return row
