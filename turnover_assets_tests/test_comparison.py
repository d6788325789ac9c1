"""Comparison: against dictionaries, and what counts as equal."""

import math
from itertools import chain

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnover_assets.core.comparison import CELLS, TableDifference, compare_tables, prepare_cells

NAN = math.nan


def compared(
    con: duckdb.DuckDBPyConnection, a: str, b: str, *keys: str, **options: object
) -> TableDifference:
    return compare_tables(con, f"SELECT * FROM {a}", f"SELECT * FROM {b}", keys, **options)  # type: ignore[arg-type]


def test_rows_and_values_that_differ_are_counted_and_shown(con: duckdb.DuckDBPyConnection) -> None:
    a = "(VALUES (1, 10.0, 'x'), (2, 20.0, 'y'), (3, 30.0, 'z')) AS t(k, amount, note)"
    b = "(VALUES (2, 21.0, 'y'), (3, 30.0, 'z'), (4, 40.0, 'w'), (5, NULL, 'v')) AS t(k, amount, note)"

    found = compared(con, a, b, "k")

    assert (found.rows_a, found.rows_b, found.only_a, found.only_b, found.changed) == (3, 4, 1, 2, 1)
    assert found.changed_by_column == {"amount": 1}
    assert not found.equal
    assert found.examples.iloc[0].to_dict() == {
        "difference": "changed",
        "keys": "k=2",
        "column_name": "amount",
        "a": "20.0",
        "b": "21.0",
    }


def test_every_differing_cell_is_kept(con: duckdb.DuckDBPyConnection) -> None:
    a = "(VALUES (1, 'a', 10.0, 'x'), (2, 'a', 20.0, 'y')) AS t(k, l, amount, note)"
    b = "(VALUES (1, 'a', 11.0, NULL), (3, 'a', 30.0, 'z')) AS t(k, l, amount, note)"
    prepare_cells(con)

    compared(con, a, b, "k", "l", keep_as="first")
    compared(con, a, a, "k", "l", keep_as="second")

    assert con.execute(f"FROM {CELLS} ORDER BY ALL").fetchall() == [
        ("first", "changed", "k=1, l=a", "amount", "10.0", "11.0"),
        ("first", "changed", "k=1, l=a", "note", "x", None),
        ("first", "only_a", "k=2, l=a", "amount", "20.0", None),
        ("first", "only_a", "k=2, l=a", "note", "y", None),
        ("first", "only_b", "k=3, l=a", "amount", None, "30.0"),
        ("first", "only_b", "k=3, l=a", "note", None, "z"),
    ]


def test_null_equals_null_and_nan_equals_nan_also_in_keys(con: duckdb.DuckDBPyConnection) -> None:
    table = "(VALUES (NULL, NULL), (1, 'nan'::DOUBLE), ('nan'::DOUBLE, 3.0)) AS t(k, v)"

    assert compared(con, table, table, "k").equal


def test_the_last_bit_counts(con: duckdb.DuckDBPyConnection) -> None:
    a, b = (f"(SELECT 1 AS k, {value!r}::DOUBLE AS v)" for value in (0.3, math.nextafter(0.3, 1)))

    assert compared(con, a, b, "k").changed == 1


def test_rows_that_repeat_a_key_are_a_bag(con: duckdb.DuckDBPyConnection) -> None:
    a = "(VALUES (1, 'x'), (1, 'y'), (1, 'y')) AS t(k, v)"
    b = "(VALUES (1, 'y'), (1, 'x')) AS t(k, v)"

    assert compared(con, a, a, "k").equal
    assert (compared(con, a, b).only_a, compared(con, a, b).only_b) == (1, 0)
    assert (compared(con, a, b, "k").only_a, compared(con, a, b, "k").changed) == (1, 0)


def test_ignored_columns_do_not_count_and_lacking_ones_do(con: duckdb.DuckDBPyConnection) -> None:
    a = "(VALUES (1, 2, 3)) AS t(k, v, made)"
    b = "(VALUES (1, 2, 4, 5)) AS t(k, v, made, extra)"

    assert compared(con, a, b, "k", ignored=["made", "extra"]).equal
    found = compared(con, a, b, "k", ignored=["made"])
    assert (found.columns_only_a, found.columns_only_b, found.equal) == ((), ("extra",), False)


def test_a_column_whose_type_changed_is_compared_as_text(con: duckdb.DuckDBPyConnection) -> None:
    a, b = "(VALUES ('1', '10')) AS t(k, v)", "(VALUES (1, 10), (2, 20)) AS t(k, v)"

    found = compared(con, a, b, "k")

    assert (found.only_a, found.only_b, found.changed) == (0, 1, 0)


def test_names_are_whatever_a_relation_calls_its_columns(con: duckdb.DuckDBPyConnection) -> None:
    a, b = (f"""(SELECT 1 AS "the 'key'", {value} AS "a ""b") """ for value in (1, 2))

    found = compared(con, a, b, "the 'key'")

    assert found.changed_by_column == {'a "b': 1}
    assert found.examples["keys"].tolist() == ["the 'key'=1"]


VALUES = st.sampled_from([None, NAN, 0.0, 1.0, -1.5, 0.1])
TABLES = st.dictionaries(st.tuples(st.integers(0, 3), st.sampled_from(["x", "y", None])), VALUES, max_size=8)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(a=TABLES, b=TABLES)
def test_counts_and_cells_are_those_of_dictionaries(
    shared_con: duckdb.DuckDBPyConnection,
    a: dict[tuple[int, str | None], float | None],
    b: dict[tuple[int, str | None], float | None],
) -> None:
    con = shared_con
    for name, table in (("side_a", a), ("side_b", b)):
        con.execute(f"CREATE OR REPLACE TEMP TABLE {name} (k INTEGER, l VARCHAR, v DOUBLE)")
        if table:
            rows = [(*key, value) for key, value in table.items()]
            con.execute(
                f"INSERT INTO {name} VALUES {', '.join(['(?, ?, ?)'] * len(rows))}", list(chain(*rows))
            )
    prepare_cells(con)

    found = compared(con, "side_a", "side_b", "k", "l", keep_as="t")

    changed = [key for key in a if key in b and repr(a[key]) != repr(b[key])]
    assert (found.only_a, found.only_b, found.changed) == (len(a.keys() - b), len(b.keys() - a), len(changed))
    cells = con.execute(f"SELECT * FROM {CELLS}").df()
    assert len(cells) == len(changed) + len(a.keys() ^ b.keys())
    assert found.equal is cells.empty
    pd.testing.assert_series_equal(
        cells["difference"].value_counts().sort_index(),
        pd.Series({"changed": len(changed), "only_a": found.only_a, "only_b": found.only_b})
        .loc[lambda counts: counts > 0]
        .sort_index(),
        check_names=False,
        check_index_type=False,
        check_dtype=False,
    )


@pytest.mark.parametrize("rows", [0, 1])
def test_empty_tables_can_be_compared(con: duckdb.DuckDBPyConnection, rows: int) -> None:
    a, b = "(SELECT 1 AS k, 2 AS v LIMIT 0)", f"(SELECT 1 AS k, 2 AS v LIMIT {rows})"

    assert (compared(con, a, b, "k").only_b, compared(con, a, b, "k").equal) == (rows, not rows)
