"""Restatements: each change of a reported value by a later file, and nothing else."""

from itertools import pairwise

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnover_assets.core.cleaning import content_version
from turnover_assets.core.restatements import RESTATEMENTS
from turnover_assets.panel import default_panel
from turnover_assets_tests.factories import (
    LANDED_AT,
    RawFile,
    clean_all,
    empty_raw,
    insert_raw,
    walmart_like,
)

PANEL = default_panel()
WEEK, NEXT_WEEK = "2017-06-10", "2017-06-17"
Row = tuple[str, str, str]  # week, store, turnover


def turnover(*rows: Row) -> RawFile:
    return RawFile(
        "turnover",
        [
            {"week": week, "store": store, "department": "73", "turnover": value}
            for week, store, value in rows
        ],
    )


def restated(con: duckdb.DuckDBPyConnection, *files: RawFile) -> pd.DataFrame:
    insert_raw(con, PANEL, files)
    clean_all(con, PANEL)
    return con.execute(f"SELECT * FROM {RESTATEMENTS}").df()


def test_three_values_of_a_key_are_two_restatements(con: duckdb.DuckDBPyConnection) -> None:
    first = turnover((WEEK, "1", "10"), (WEEK, "2", "7"))
    second = turnover((NEXT_WEEK, "1", "1"), (WEEK, "1", "12"))

    table = restated(con, first, second, turnover((WEEK, "1", "9")))

    columns = ["store", "old_value", "new_value", "old_file", "old_line", "new_file", "new_line"]
    assert table[columns].values.tolist() == [
        [1, 10.0, 12.0, "file_1", 2, "file_2", 3],
        [1, 12.0, 9.0, "file_2", 3, "file_3", 2],
    ]
    assert table["week"].astype(str).tolist() == [WEEK, WEEK]
    assert (table["landed_at"] == LANDED_AT).all()


@pytest.mark.parametrize(
    "files",
    [
        (turnover((WEEK, "1", "10")), turnover((WEEK, "1", "10.0"))),
        (turnover((WEEK, "1", "10"), (WEEK, "1", "12")),),
        (turnover((WEEK, "1", "10")), turnover((WEEK, "1", "ten"))),
        (turnover((WEEK, "1", "10")), turnover((NEXT_WEEK, "1", "12"))),
        (),
    ],
    ids=["same value", "repeated in one file", "rejected", "another period", "no files"],
)
def test_what_changes_no_value_is_no_restatement(
    con: duckdb.DuckDBPyConnection, files: tuple[RawFile, ...]
) -> None:
    assert restated(con, *files).empty


def test_the_last_line_of_a_file_is_what_it_restates_to(con: duckdb.DuckDBPyConnection) -> None:
    table = restated(con, turnover((WEEK, "1", "10")), turnover((WEEK, "1", "11"), (WEEK, "1", "12")))

    assert table[["old_value", "new_value", "new_line"]].values.tolist() == [[10.0, 12.0, 3.0]]


def test_the_data_version_is_that_of_the_values_in_force(con: duckdb.DuckDBPyConnection) -> None:
    assert len(restated(con, turnover((WEEK, "1", "10")), turnover((WEEK, "1", "12")))) == 1
    version = content_version(con, PANEL)
    empty_raw(con, PANEL)

    assert restated(con, turnover((WEEK, "1", "12"))).empty
    assert content_version(con, PANEL) == version


def test_another_panel_has_its_own_names(con: duckdb.DuckDBPyConnection) -> None:
    panel = walmart_like()
    rows = [{"store": "1", "dept": "2", "week": "2012-10-26", "amount": value} for value in ("5", "-6")]
    insert_raw(con, panel, [RawFile("sales", [row]) for row in rows])

    clean_all(con, panel)

    assert con.execute(f"SELECT store, dept, old_value, new_value FROM {RESTATEMENTS}").fetchall() == [
        (1, 2, 5.0, -6.0)
    ]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    reports=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([WEEK, NEXT_WEEK]), st.sampled_from("12"), st.sampled_from(["1", "2", "x"])
            ),
            max_size=6,
        ),
        max_size=5,
    )
)
def test_restatements_are_those_of_reading_file_by_file(
    shared_con: duckdb.DuckDBPyConnection, reports: list[list[Row]]
) -> None:
    told: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for number, rows in enumerate(reports, start=1):
        for key, value in {(week, store): value for week, store, value in rows if value != "x"}.items():
            told.setdefault(key, []).append((number, value))
    expected = {
        (*key, old, new) for key, values in told.items() for old, new in pairwise(values) if old[1] != new[1]
    }

    empty_raw(shared_con, PANEL)
    table = restated(shared_con, *(turnover(*rows) for rows in reports))

    found = {
        (
            str(row.week)[:10],
            str(row.store),
            (row.old_file_no, f"{row.old_value:g}"),
            (row.new_file_no, f"{row.new_value:g}"),
        )
        for row in table.itertuples()
    }
    assert found == expected
    assert len(table) == len(expected)
