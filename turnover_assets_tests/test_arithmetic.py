"""Arithmetic on arrays: what it gives is what DuckDB gives, to the last bit, and what it leaves to DuckDB."""

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.core.arithmetic import Arithmetic
from turnover_assets.core.models.base import Floats
from turnover_assets_tests.factories import memory_warehouse

COLUMNS = {
    "k.a": "DOUBLE",
    "k.b": "DOUBLE",
    "r.c": "DOUBLE",
    "s.whole": "BIGINT",
    "s.text": "VARCHAR",
    "s.short": "FLOAT",
}
DOUBLES = ["k.a", "k.b", "r.c"]
values = st.one_of(
    st.none(),
    st.sampled_from([0.0, -1.0, 0.1, 1 / 3]),
    st.floats(-1e9, 1e9, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9),
)


def arithmetic(con: duckdb.DuckDBPyConnection, *expressions: str) -> Arithmetic:
    return Arithmetic(con, {f"f{i}": sql for i, sql in enumerate(expressions)}, COLUMNS)


def expressions() -> st.SearchStrategy[str]:
    """SQL of every kind that is arithmetic."""
    leaves = st.sampled_from(["k.a", "k.b", "r.c", "s.whole", "0.2", "5.0", "3"])
    column = st.sampled_from(["k.a", "k.b", "r.c"])

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        with_column = st.tuples(inner, column)
        return st.one_of(
            st.builds(lambda p, op: f"({p[0]} {op} {p[1]})", with_column, st.sampled_from("+-*")),
            st.builds(lambda p: f"({p[0]} / nullif({p[1]}, 0))", with_column),
            st.builds(
                lambda p, f: f"{f}({p[0]}, {p[1]})", with_column, st.sampled_from(["least", "greatest"])
            ),
            st.builds(lambda p: f"coalesce({p[1]}, {p[0]})", with_column),
            st.builds(lambda p: f"CAST({p[1]} IS NULL AS INTEGER) * {p[1]} + {p[0]}", with_column),
            st.builds(lambda p: f"CASE WHEN {p[1]} IS NOT NULL THEN {p[0]} END", with_column),
            st.builds(
                lambda p, q, op: f"CASE WHEN {p[1]} {op} {q} AND {p[0]} >= {p[1]} THEN {p[0]} ELSE {q} END",
                with_column,
                column,
                st.sampled_from([">", "<", "=", "<="]),
            ),
        )

    return st.recursive(leaves, larger, max_leaves=6)


@given(
    st.lists(st.tuples(values, values, values, st.one_of(st.none(), st.integers(-3, 3))), min_size=1),
    st.lists(expressions(), min_size=1, max_size=4),
)
def test_arrays_hold_what_duckdb_gives(
    rows: list[tuple[float | None, float | None, float | None, int | None]], sql: list[str]
) -> None:
    with memory_warehouse() as con:
        con.execute("CREATE TEMP TABLE v (n INTEGER, a DOUBLE, b DOUBLE, c DOUBLE, whole BIGINT)")
        con.executemany("INSERT INTO v VALUES (?, ?, ?, ?, ?)", [(n, *row) for n, row in enumerate(rows)])
        listed = ", ".join(f"CAST({expression} AS DOUBLE) AS f{i}" for i, expression in enumerate(sql))
        joined = "v AS k JOIN v AS r USING (n) JOIN v AS s USING (n)"
        expected = con.execute(f"SELECT {listed} FROM {joined} ORDER BY n").df()
        found = arithmetic(con, *sql)
    columns = pd.DataFrame(rows, columns=["a", "b", "c", "whole"], dtype=np.float64)

    made = dict(found.evaluate(lambda column: columns[column.split(".")[1]].to_numpy()))

    assert found.results == tuple(expected)
    for name, array in made.items():
        np.testing.assert_array_equal(np.broadcast_to(array, len(rows)), expected[name].to_numpy(np.float64))


@pytest.mark.parametrize(
    "sql",
    [
        "ln(k.a)",  # its last bit is another in each library
        "k.a % 3",
        "0.1 * 3",  # decimals, which DuckDB reckons exactly
        "CASE WHEN 1 > 2 THEN k.a END",
        "s.text",
        "coalesce(s.short, k.a)",  # of 32 bits
        "k.unknown",
        "CAST(k.a AS INTEGER)",
        "k.a || 'x'",
        "CASE WHEN NOT (k.a > 0 AND k.b > 0) THEN 1 END",
        "CAST(k.a > 0 AS INTEGER)",  # where k.a is missing it is neither
        "-k.a",
        "'1'",
    ],
)
def test_anything_else_is_left_to_duckdb(sql: str) -> None:
    with memory_warehouse() as con:
        found = arithmetic(con, sql, "k.a * r.c")

    assert found.results == ("f1",)
    assert found.reads == ("k.a", "r.c")


def test_what_expressions_share_is_read_once() -> None:
    with memory_warehouse() as con:
        found = arithmetic(con, "k.a / k.b * r.c", "k.a / k.b", "r.c")

    columns, asked = dict(zip(DOUBLES, np.array([[6.0], [3.0], [5.0]]), strict=True)), []

    def column(name: str) -> Floats:
        asked.append(name)
        return columns[name]

    made = dict(found.evaluate(column))

    assert asked == DOUBLES
    assert found.reads == tuple(DOUBLES)
    assert {name: array.tolist() for name, array in made.items()} == {"f0": [10.0], "f1": [2.0], "f2": [5.0]}
