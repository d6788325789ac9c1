"""Comparison: two tables side by side, and every cell in which they differ.

What belongs here: comparing any two relations on their keys, exactly. What does not: which tables, and
where they come from (storage/comparison.py).

Equal is exact equality, with NULL equal to NULL and NaN to NaN. Rows that repeat a key are told apart by the
rest of their values, so that a bag of rows can be compared too.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pandas as pd

CELLS = "differing_cells"
EXAMPLES = 5
_FOUND = "differing_rows"


@dataclass(frozen=True)
class TableDifference:
    """In what two tables differ.

    Attributes:
        rows_a: Rows of A.
        rows_b: Rows of B.
        only_a: Rows whose key is in A only.
        only_b: Rows whose key is in B only.
        changed: Rows with the same key and other values.
        changed_by_column: For each column with other values, in how many of those rows.
        columns_only_a: Columns that B does not have.
        columns_only_b: Columns that A does not have.
        examples: A few of the differing cells, in the layout of `differing_cells`.
    """

    rows_a: int
    rows_b: int
    only_a: int
    only_b: int
    changed: int
    changed_by_column: Mapping[str, int]
    columns_only_a: tuple[str, ...]
    columns_only_b: tuple[str, ...]
    examples: pd.DataFrame

    @property
    def equal(self) -> bool:
        """Whether there is no difference at all."""
        counts = self.only_a + self.only_b + self.changed
        return not (counts or self.columns_only_a or self.columns_only_b)


def prepare_cells(con: duckdb.DuckDBPyConnection) -> None:
    """Make the temporary table of differing cells, empty.

    Its columns: `table_name`, `difference` (`only_a`, `only_b` or `changed`), `keys` (as `store=1, week=…`),
    `column_name`, `a` and `b` (as text; NULL where the row is not there, or the value is NULL).
    """
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {CELLS} (table_name VARCHAR, difference VARCHAR, keys VARCHAR, "
        "column_name VARCHAR, a VARCHAR, b VARCHAR)"
    )


def compare_tables(
    con: duckdb.DuckDBPyConnection,
    a_sql: str,
    b_sql: str,
    keys: Sequence[str],
    *,
    ignored: Collection[str] = (),
    keep_as: str | None = None,
) -> TableDifference:
    """Set two relations side by side.

    Args:
        con: A connection that reads both; temporary tables are made in it.
        a_sql: A query, or `FROM table`, for A.
        b_sql: The same for B.
        keys: Columns, in both, by which rows belong together; none where all columns do.
        ignored: Columns to leave out, in either.
        keep_as: Append the differing cells to the table of prepare_cells under this table name.

    Returns:
        The counts and a few examples.
    """
    types_a, types_b = _types(con, a_sql, ignored), _types(con, b_sql, ignored)
    shared = [name for name in types_a if name in types_b]
    keys = list(keys) or shared
    values = [name for name in shared if name not in keys]
    retyped = {name for name in shared if types_a[name] != types_b[name]}
    sides = [_numbered(sql, keys, values, retyped) for sql in (a_sql, b_sql)]
    con.execute(f"CREATE OR REPLACE TEMP TABLE {_FOUND} AS {_differing_sql(sides, keys, values)}")
    counts = con.execute(_counts_sql(values)).fetchall()[0]
    cells = _cells_sql(keys, values)
    if keep_as is not None:
        con.execute(f"INSERT INTO {CELLS} SELECT ?, * FROM ({cells})", [keep_as])
    rows_a, rows_b = (con.execute(f"SELECT count(*) FROM ({sql})").fetchall()[0][0] for sql in (a_sql, b_sql))
    found = TableDifference(
        rows_a=rows_a,
        rows_b=rows_b,
        only_a=counts[0],
        only_b=counts[1],
        changed=counts[2],
        changed_by_column={name: n for name, n in zip(values, counts[3:], strict=True) if n},
        columns_only_a=tuple(name for name in types_a if name not in types_b),
        columns_only_b=tuple(name for name in types_b if name not in types_a),
        examples=con.execute(f"{cells} ORDER BY difference, keys, column_name LIMIT {EXAMPLES}").df(),
    )
    con.execute(f"DROP TABLE {_FOUND}")
    return found


def _types(con: duckdb.DuckDBPyConnection, sql: str, ignored: Collection[str]) -> dict[str, str]:
    described = con.execute(f"DESCRIBE {sql}").fetchall()
    return {row[0]: str(row[1]) for row in described if row[0] not in ignored}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _numbered(sql: str, keys: Sequence[str], values: Sequence[str], retyped: Collection[str]) -> str:
    """One side: the shared columns, as text where their types differ, and a number among equal keys."""
    columns = [
        f"CAST({_quoted(name)} AS VARCHAR) AS {_quoted(name)}" if name in retyped else _quoted(name)
        for name in [*keys, *values]
    ]
    key = ", ".join(map(_quoted, keys))
    order = ", ".join(map(_quoted, values)) or "1"
    return (
        f'SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {order}) AS " copy" '
        f"FROM (SELECT {', '.join(columns)} FROM ({sql}))"
    )


def _differing_sql(sides: Sequence[str], keys: Sequence[str], values: Sequence[str]) -> str:
    """Rows of both sides as two structs; the names with a blank are none that a table here has."""
    same = [f"a.{name} IS NOT DISTINCT FROM b.{name}" for name in [*map(_quoted, keys), '" copy"']]
    changed = [f"a.{_quoted(name)} IS DISTINCT FROM b.{_quoted(name)}" for name in values]
    there = " IS NULL OR ".join(('a." copy"', 'b." copy"')) + " IS NULL"
    return (
        f"SELECT a, b FROM ({sides[0]}) AS a FULL JOIN ({sides[1]}) AS b ON {' AND '.join(same)} "
        f"WHERE {' OR '.join([there, *changed])}"
    )


def _counts_sql(values: Sequence[str]) -> str:
    both = 'a." copy" IS NOT NULL AND b." copy" IS NOT NULL'
    counted = [
        f"count(*) FILTER ({both} AND a.{_quoted(name)} IS DISTINCT FROM b.{_quoted(name)})"
        for name in values
    ]
    sides = ['count(*) FILTER (b." copy" IS NULL)', 'count(*) FILTER (a." copy" IS NULL)']
    return f"SELECT {', '.join([*sides, f'count(*) FILTER ({both})', *counted])} FROM {_FOUND}"


def _cells_sql(keys: Sequence[str], values: Sequence[str]) -> str:
    """The differing cells; a row that one side lacks gives one for each of its values."""
    shown = ", ".join(
        f"{_literal(f'{name}=')} || "
        f"coalesce(CAST(coalesce(a.{_quoted(name)}, b.{_quoted(name)}) AS VARCHAR), '')"
        for name in keys
    )
    difference = (
        "CASE WHEN b.\" copy\" IS NULL THEN 'only_a' "
        "WHEN a.\" copy\" IS NULL THEN 'only_b' ELSE 'changed' END"
    )
    parts = []
    for name in values or keys[:1]:
        a, b = f"a.{_quoted(name)}", f"b.{_quoted(name)}"
        parts.append(
            f"SELECT {difference} AS difference, concat_ws(', ', {shown}) AS keys, "
            f"{_literal(name)} AS column_name, CAST({a} AS VARCHAR) AS a, CAST({b} AS VARCHAR) AS b "
            f'FROM {_FOUND} WHERE a." copy" IS NULL OR b." copy" IS NULL OR {a} IS DISTINCT FROM {b}'
        )
    return " UNION ALL ".join(parts)
