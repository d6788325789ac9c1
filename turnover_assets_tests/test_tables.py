"""Columns as arrays, into tables and back."""

import gc
import weakref

import duckdb
import numpy as np
import pytest

from turnover_assets.core.tables import SHARED, has_table, read_columns, write_columns

ORDER = "SELECT current_setting('preserve_insertion_order')"


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def test_columns_come_back_as_they_were(con: duckdb.DuckDBPyConnection) -> None:
    columns = {"i": np.arange(3 * SHARED), "x": np.linspace(-1.0, 1.0, 3 * SHARED).astype(np.float32)}
    columns["x"][7] = np.nan

    write_columns(con, "CREATE TABLE made AS", columns)
    write_columns(con, "INSERT INTO made", {name: values[:2] for name, values in columns.items()})

    assert con.execute("SELECT count(*), count(x), min(i) FROM made").fetchall() == [
        (3 * SHARED + 2, 3 * SHARED + 1, 0)
    ]
    found = read_columns(con.sql("SELECT * FROM made ORDER BY i"))
    expected = {name: np.concatenate([values[:2].repeat(2), values[2:]]) for name, values in columns.items()}
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    assert not has_table(con, "main.columns_to_write")


def test_a_write_that_fails_says_why_and_leaves_the_order_of_rows_alone(
    con: duckdb.DuckDBPyConnection,
) -> None:
    con.execute("CREATE TABLE whole (i TINYINT)")
    con.execute("BEGIN TRANSACTION")

    with pytest.raises(duckdb.ConversionException, match="1000"):
        write_columns(con, "INSERT INTO whole", {"i": np.array([1, 1000])})

    con.execute("ROLLBACK")
    assert con.execute(ORDER).fetchall() == [(True,)]


def test_what_was_written_is_not_held_until_the_transaction_ends(con: duckdb.DuckDBPyConnection) -> None:
    values = np.arange(100_000.0)
    held, sum_of_all = weakref.ref(values), float(values.sum())

    con.execute("BEGIN TRANSACTION")
    write_columns(con, "CREATE TEMP TABLE written AS", {"value": values})
    del values
    gc.collect()

    assert held() is None
    assert con.execute("SELECT sum(value) FROM written").fetchall() == [(sum_of_all,)]
    con.execute("ROLLBACK")
