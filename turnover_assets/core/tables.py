"""Tables: one question that many modules ask.

What belongs here: whether a table is there.
"""

import duckdb


def has_table(con: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether a table, named as schema.table, is there."""
    schema, _, name = table.partition(".")
    found = con.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
        [schema, name],
    ).fetchall()
    return bool(found[0][0])
