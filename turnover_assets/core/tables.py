"""Tables: what many modules ask of them and do with them.

What belongs here: whether a table is there, and a table's columns as arrays, there and back.
"""

from collections.abc import Mapping
from typing import Any

import duckdb
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]
Columns = dict[str, Array]
SHARED = 32_768  # rows that one of DuckDB's threads reads at a time


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


def as_relation(columns: Mapping[str, Array]) -> pa.Table:
    """Columns as DuckDB reads them: with NULL for NaN, and in parts that its threads share."""
    whole = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    return pa.Table.from_batches(whole.to_batches(max_chunksize=SHARED), whole.schema)


def write_columns(con: duckdb.DuckDBPyConnection, into: str, columns: Mapping[str, Array]) -> None:
    """Write columns, with NULL for NaN, by a statement that lacks only its source.

    Rows may stand in another order: DuckDB uses one thread only where it has to keep it.

    Args:
        con: The connection.
        into: SQL such as `INSERT INTO t` or `CREATE TABLE t AS`.
        columns: The columns by name, all of one length.
    """
    # DuckDB finds the variable by its name; what is registered, a transaction holds in memory until its end.
    columns_to_write = as_relation(columns)  # noqa: F841
    with con.cursor() as settings:  # in no transaction, which a write that fails would have ended
        settings.execute("SET preserve_insertion_order = false")
        try:
            con.execute(f"{into} SELECT * FROM columns_to_write")
        finally:
            settings.execute("SET preserve_insertion_order = true")
