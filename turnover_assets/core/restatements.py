"""Restatements: reported values that a later file changed, with the old and the new value.

What belongs here: the table cleaned.restatements. What does not: which row counts (cleaning.py), keys
repeated within one file (cleaned.rejected).
"""

import duckdb

from turnover_assets.panel import PanelSpec

RESTATEMENTS = "cleaned.restatements"


def record_restatements(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    """Rebuild cleaned.restatements from the temporary table `judged` of the series table.

    One row each time that a file changes the value an earlier file reported; a value repeated as it was is
    none. Three values of one key in three files are two rows. Its columns: series keys, time, `old_value`
    and `new_value` (units of the target), file, number and line of both, and `landed_at` of the new one.
    """
    keys = ", ".join(panel.keys)
    con.execute(f"""
        CREATE OR REPLACE TABLE {RESTATEMENTS} AS
        SELECT {keys}, {panel.time}, old_value, new_value, old_file, old_file_no, old_line,
          new_file, new_file_no, new_line, landed_at
        FROM (
          SELECT {keys}, {panel.time}, t, landed_at,
            lag({panel.target}) OVER earlier AS old_value, {panel.target} AS new_value,
            lag(file) OVER earlier AS old_file, lag(file_no) OVER earlier AS old_file_no,
            lag(line) OVER earlier AS old_line, file AS new_file, file_no AS new_file_no, line AS new_line
          FROM judged WHERE rule IS NULL
          WINDOW earlier AS (PARTITION BY {keys}, t ORDER BY file_no))
        WHERE old_value <> new_value
        ORDER BY {keys}, t, new_file_no""")
