"""Tables: questions that many modules ask.

What belongs here: whether a table is there, and reading a query's columns as arrays.
"""

from typing import Any

import duckdb
import numpy.typing as npt

Array = npt.NDArray[Any]
Columns = dict[str, Array]


def has_table(con: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether a table, named as schema.table, is there."""
    schema, _, name = table.partition(".")
    found = con.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
        [schema, name],
    ).fetchall()
    return bool(found[0][0])


def read_columns(query: duckdb.DuckDBPyRelation) -> Columns:
    """The columns of a query as arrays by name; a number that is NULL is NaN."""
    table = query.to_arrow_table()
    return {name: table[name].to_numpy() for name in table.column_names}
