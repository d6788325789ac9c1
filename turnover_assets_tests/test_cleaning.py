"""Cleaning: against a row-by-row oracle, and rule by rule."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnover_assets.core import cleaning
from turnover_assets.panel import default_panel
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests import oracles
from turnover_assets_tests.factories import (
    RawFile,
    clean_all,
    daily,
    empty_raw,
    insert_raw,
    land_text,
    make_panel,
    memory_warehouse,
    walmart_like,
)

PANEL = default_panel()
COLUMNS = ("week", "store", "department", "turnover")
HEADER = "day_id,but_num_business_unit,dpt_num_department,turnover"


def turnover(*rows: tuple[str | None, ...], delimiter: str = ",") -> RawFile:
    """A turnover file from rows of (week, store, department, turnover)."""
    return RawFile("turnover", [dict(zip(COLUMNS, row, strict=True)) for row in rows], delimiter)


def stores(*numbers: str, **attributes: str | None) -> RawFile:
    """A store file that lists some stores, all with the same attributes."""
    names = ("postcode", "latitude", "longitude", "region", "zone")
    given_ = dict.fromkeys(names) | attributes
    return RawFile("stores", [{"store": number} | given_ for number in numbers])


def rejected(con: duckdb.DuckDBPyConnection) -> list[tuple[str, int, str, str]]:
    """File, line, rule and message of what was rejected."""
    return con.execute(
        f"SELECT file, line, rule, message FROM {cleaning.REJECTED} ORDER BY table_name, file, line, rule"
    ).fetchall()


def cleaned(
    con: duckdb.DuckDBPyConnection, columns: str = "store, department, week, turnover"
) -> list[tuple]:
    return con.execute(f"SELECT {columns} FROM cleaned.turnover ORDER BY ALL").fetchall()


def clean(con: duckdb.DuckDBPyConnection, *files: RawFile) -> None:
    insert_raw(con, PANEL, files)
    clean_all(con, PANEL)


# Messy rows against the oracle

WEEKS = ("2017-06-10", "2017-06-17 00:00:00", "2017-06-24T00:00", "2017-07-01")
GOOD_NUMBERS = st.one_of(
    st.floats(-1e15, 1e15).map(repr),
    st.floats(-1e5, 1e5).map(lambda value: f"{value:.2f}"),
    st.sampled_from(["0", "-0", "+7", ".5", "5.", "1e3", "1E-3", "1e15", "4.9e-324", "1e-400", "007"]),
)
NO_NUMBERS = "inf -Infinity abc 1e308 1e999 1,5 1.234,5 0x10 1_0 --1 12€ ٣ e5 ."
BAD_NUMBERS = st.sampled_from([*NO_NUMBERS.split(), "1 000"])
NO_DATES = "2017-06-11 2017-02-31 10/06/2017 20170610 2017-6-10 2017-06-10T12:00 2017-06-10T soon 9999-12-25"
BAD_DATES = st.sampled_from([*NO_DATES.split(), "0001-01-06", "2017-06-10 12:00"])
ABSENT = st.sampled_from([None, "", " ", "NA", "na", "NaN", "null", "NULL"])


def mostly(good: st.SearchStrategy, *bad: st.SearchStrategy) -> st.SearchStrategy:
    """Good three times out of four, so that rows often get past their other fields."""
    return st.integers(0, 3).flatmap(lambda n: st.one_of(*bad) if n == 0 else good)


ROWS = st.fixed_dictionaries(
    {
        "week": mostly(
            st.sampled_from(WEEKS),
            ABSENT,
            BAD_DATES,
        ),
        "store": mostly(
            st.sampled_from(["1", "2", "3.0", "+1", "02", "9"]),
            ABSENT,
            st.sampled_from(["12.5", "x", "1e3", "1,0", "9" * 19, "-"]),
        ),
        "department": mostly(st.sampled_from(["73", "88.", "88.00"]), ABSENT, st.sampled_from(["12.5", "A"])),
        "turnover": mostly(GOOD_NUMBERS, ABSENT, BAD_NUMBERS),
    }
)
FILES = st.lists(
    st.tuples(
        st.lists(st.tuples(ROWS, st.sampled_from([None] * 9 + ["3 fields instead of 4: a,b,c"])), max_size=8),
        st.sampled_from(",;"),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(files=FILES, listed=st.sampled_from([None, ("1", "2"), ("1", "2", "3", "9")]))
def test_messy_rows_are_kept_restated_or_rejected_as_the_oracle_says(
    shared_con: duckdb.DuckDBPyConnection,
    files: list[tuple[list[tuple[dict[str, str | None], str | None]], str]],
    listed: tuple[str, ...] | None,
) -> None:
    con = shared_con
    raw = [
        RawFile(
            "turnover",
            [row for row, _ in rows],
            delimiter,
            malformed={i: problem for i, (_, problem) in enumerate(rows) if problem},
        )
        for rows, delimiter in files
    ]
    every = [
        oracles.RawRow(number, file.line(i), file.delimiter, row, file.malformed.get(i))
        for number, file in enumerate(raw, start=1)
        for i, row in enumerate(file.rows)
    ]
    expected = oracles.clean_turnover(every, {int(store) for store in listed} if listed else None)

    empty_raw(con, PANEL)
    clean(con, *raw, *([stores(*listed)] if listed else []))
    kept = cleaned(con, "file_no, line, store, department, week, turnover, turnover_adjusted, adjustment_id")
    turned_away = rejected(con)

    assert {row[:2]: row[2:6] for row in kept} == expected.kept
    assert all(row[5] == row[6] and row[7] is None for row in kept)
    found = {(int(file.removeprefix("file_")), line): rule for file, line, rule, _ in turned_away}
    assert found == expected.rejected
    places = [(row.file_no, row.line) for row in every]
    assert sorted([*expected.kept, *found, *expected.restated]) == places
    assert len(turned_away) + len(kept) + len(expected.restated) == len(every)
    assert all(message for *_, message in turned_away)


@given(texts=st.lists(GOOD_NUMBERS, min_size=1, max_size=50))
@settings(max_examples=20)
def test_reported_values_are_exactly_what_the_texts_say(
    shared_con: duckdb.DuckDBPyConnection, texts: list[str]
) -> None:
    rows = [("2017-06-10", str(store), "73", text) for store, text in enumerate(texts)]

    empty_raw(shared_con, PANEL)
    clean(shared_con, turnover(*rows))

    assert [
        value
        for (value,) in shared_con.execute("SELECT turnover FROM cleaned.turnover ORDER BY store").fetchall()
    ] == [float(text) for text in texts]


# Rule by rule


@pytest.mark.parametrize(
    ("row", "rule", "message"),
    [
        ((None, "1", "2", "3"), "date_missing", "day_id is missing"),
        (("June", "1", "2", "3"), "not_a_date", "day_id is not a date (YYYY-MM-DD): June"),
        (
            ("9999-12-25", "1", "2", "3"),
            "date_out_of_range",
            "day_id 9999-12-25 is not between 1900 and 2199",
        ),
        (
            ("2017-06-11", "1", "2", "3"),
            "not_a_period",
            "day_id 2017-06-11 is a Sunday, not the start of a week that starts on saturday",
        ),
        (
            ("2031-06-07", "1", "2", "3"),
            "date_in_future",
            "day_id 2031-06-07 had not begun when the file landed, on 2030-06-01",
        ),
        (("2017-06-10", " ", "2", "3"), "key_missing", "but_num_business_unit is missing"),
        (
            ("2017-06-10", "12.5", "2", "3"),
            "key_unreadable",
            "but_num_business_unit is not a whole number: 12.5",
        ),
        (("2017-06-10", "1", "NA", "3"), "key_missing", "dpt_num_department is missing"),
        (("2017-06-10", "1", "2", "null"), "value_missing", "turnover is missing"),
        (("2017-06-10", "1", "2", "1,5"), "not_a_number", "turnover is not a number: 1,5"),
        (
            ("2017-06-10", "1", "2", "-1e16"),
            "value_out_of_range",
            "turnover is not between -1e+15 and 1e+15: -1e16",
        ),
        (
            ("2017-06-10", "8", "2", "3"),
            "unknown_store",
            "store 8 is in no stores file; land one that lists it and the row is taken up",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value and " " not in value else "",
)
def test_a_rejected_row_is_listed_with_file_line_rule_and_message(
    con: duckdb.DuckDBPyConnection, row: tuple[str | None, ...], rule: str, message: str
) -> None:
    clean(con, stores("1"), turnover(("2017-06-17", "1", "2", "3"), row))

    assert rejected(con) == [("file_2", 3, rule, message)]
    assert len(cleaned(con)) == 1


def test_of_a_key_repeated_in_a_file_the_later_line_counts(con: duckdb.DuckDBPyConnection) -> None:
    clean(con, turnover(("2017-06-10", "1", "2", "3"), ("2017-06-10", "1.0", "2", "4")))

    message = "the same key stands again in line 3 of this file; the later line counts"
    assert rejected(con) == [("file_1", 2, "repeated_key", message)]
    assert cleaned(con, "turnover, line") == [(4.0, 3)]


def test_a_bad_row_does_not_restate_a_good_one(con: duckdb.DuckDBPyConnection) -> None:
    clean(con, turnover(("2017-06-10", "1", "2", "3")), turnover(("2017-06-10", "1", "2", "??")))

    assert cleaned(con, "turnover, file_no") == [(3.0, 1)]


def test_a_malformed_row_is_kept_as_it_came(con: duckdb.DuckDBPyConnection) -> None:
    row = dict.fromkeys(COLUMNS) | {"week": "2017-06-10"}
    problem = "1 field instead of 4: 2017-06-10"

    clean(con, RawFile("turnover", [row], lines=[17], malformed={0: problem}))

    assert con.execute(f"SELECT * EXCLUDE (message, file_no) FROM {cleaning.REJECTED}").fetchall() == [
        ("turnover", "file_1", 17, "malformed_row", "row rejected", problem)
    ]


def test_the_rejected_row_shows_its_values(con: duckdb.DuckDBPyConnection) -> None:
    clean(con, turnover(("2017-06-10", "one", None, "3")))

    shown = con.execute(f"SELECT raw_values FROM {cleaning.REJECTED}").fetchall()
    assert shown == [("store=one, department=, turnover=3, week=2017-06-10",)]


@pytest.mark.parametrize(
    ("delimiter", "values"), [(";", [(1234.5,), (2.25,)]), (",", [(2.25,)])], ids=["semicolon", "comma"]
)
def test_a_decimal_comma_is_read_in_files_with_semicolons_only(
    con: duckdb.DuckDBPyConnection, delimiter: str, values: list[tuple[float]]
) -> None:
    rows = [("2017-06-10", "1", "2", "2.25"), ("2017-06-17", "1", "2", "1234,5")]

    clean(con, turnover(*rows, delimiter=delimiter))

    assert sorted(cleaned(con, "turnover")) == sorted(values)


def test_a_panel_with_its_own_missing_texts_still_takes_the_empty_text_for_missing(
    con: duckdb.DuckDBPyConnection,
) -> None:
    shops = {
        "name": "sales",
        "keys": [{"name": "shop"}],
        "time": {"name": "week"},
        "target": {"name": "amount"},
    }
    panel = make_panel(missing=["-"], series=shops)
    rows = [{"shop": shop, "week": "2024-01-01", "amount": "1"} for shop in ("", "-", "NA")]

    insert_raw(con, panel, [RawFile("sales", rows)])
    clean_all(con, panel)

    assert con.execute("SELECT shop FROM cleaned.sales").fetchall() == [("NA",)]


def test_names_with_quotation_marks_and_dates_in_another_format_are_read(
    con: duckdb.DuckDBPyConnection,
) -> None:
    panel = daily()
    days = ("07/03/2021", "2021-03-07", "31/02/2021", "08/03/2021")
    amounts = ("1", "2", "3", "much")
    rows = [{"shop": "côte d'or", "day": day, "amount": a} for day, a in zip(days, amounts, strict=True)]

    insert_raw(con, panel, [RawFile("takings", rows)])
    clean_all(con, panel)

    found = con.execute("SELECT shop, CAST(day AS VARCHAR), amount FROM cleaned.takings").fetchall()
    assert found == [("côte d'or", "2021-03-07", 1.0)]
    assert [message for *_, message in rejected(con)] == [
        "Jour is not a date (%d/%m/%Y): 2021-03-07",
        "Jour is not a date (%d/%m/%Y): 31/02/2021",
        "Chiffre d'affaires is not a number: much",
    ]


# Static tables and covariates


def test_rows_of_an_unknown_store_are_taken_up_once_a_file_lists_it(con: duckdb.DuckDBPyConnection) -> None:
    rows = turnover(("2017-06-10", "1", "2", "3"), ("2017-06-10", "5", "2", "4"))
    taken = []

    for landed in ([rows], [rows, stores("1")], [rows, stores("1"), stores("5")]):
        con.execute("DROP TABLE IF EXISTS raw.files; DROP TABLE IF EXISTS raw.turnover")
        con.execute("DROP TABLE IF EXISTS raw.stores")
        clean(con, *landed)
        taken.append([store for (store,) in cleaned(con, "store")])

    assert taken == [[1, 5], [1], [1, 5]]
    assert rejected(con) == []


def test_a_static_table_that_is_not_required_rejects_no_one(con: duckdb.DuckDBPyConnection) -> None:
    table = {"name": "shops", "keys": ["shop"], "columns": [{"name": "size"}], "required": False}
    panel = make_panel(static=[table])
    sales = RawFile("sales", [{"shop": "9", "week": "2024-01-01", "amount": "1"}])

    insert_raw(con, panel, [RawFile("shops", [{"shop": "1", "size": "L"}]), sales])
    clean_all(con, panel)

    assert con.execute("SELECT shop FROM cleaned.sales").fetchall() == [(9,)]


def test_rows_must_be_listed_under_both_keys_of_a_table_with_two(con: duckdb.DuckDBPyConnection) -> None:
    keys = [{"name": "shop", "type": "integer"}, {"name": "aisle"}]
    series = {"name": "sales", "keys": keys, "time": {"name": "week"}, "target": {"name": "amount"}}
    table = {"name": "shelves", "keys": ["shop", "aisle"], "columns": [{"name": "height", "type": "number"}]}
    panel = make_panel(series=series, static=[table])
    rows = [{"shop": "1", "aisle": aisle, "week": "2024-01-01", "amount": "1"} for aisle in "AB"]

    insert_raw(
        con, panel, [RawFile("shelves", [{"shop": "1", "aisle": "A", "height": "2"}]), RawFile("sales", rows)]
    )
    clean_all(con, panel)

    assert con.execute("SELECT aisle FROM cleaned.sales").fetchall() == [("A",)]
    assert [row[2:] for row in rejected(con)] == [
        (
            "unknown_shop_aisle",
            "shop 1, aisle B is in no shelves file; land one that lists it and the row is taken up",
        )
    ]


def test_of_a_store_listed_twice_the_last_line_wins_and_the_other_is_listed(
    con: duckdb.DuckDBPyConnection,
) -> None:
    twice = RawFile("stores", [*stores("1", region="7").rows, *stores("1", region="8").rows])

    clean(con, twice)

    assert con.execute("SELECT store, region, line FROM cleaned.stores").fetchall() == [(1, 8, 3)]
    assert [row[:3] for row in rejected(con)] == [("file_1", 2, "repeated_key")]


def test_a_later_store_file_restates_an_earlier_one(con: duckdb.DuckDBPyConnection) -> None:
    clean(con, stores("1", "2", region="7"), stores("2", region="8"))

    assert con.execute("SELECT store, region FROM cleaned.stores ORDER BY 1").fetchall() == [(1, 7), (2, 8)]
    assert rejected(con) == []


def test_an_unreadable_attribute_is_left_empty_and_listed(con: duckdb.DuckDBPyConnection) -> None:
    clean(con, stores("1", region="north", latitude="48.5", postcode="75011"))

    row = con.execute("SELECT store, postcode, latitude, region FROM cleaned.stores").fetchall()
    assert row == [(1, "75011", 48.5, None)]
    assert con.execute(f"SELECT file, line, rule, message, action FROM {cleaning.REJECTED}").fetchall() == [
        (
            "file_1",
            2,
            "attribute_unreadable",
            "but_region_idr_region is not of type integer: north",
            "value left empty",
        )
    ]


def test_covariates_keep_a_row_whose_values_are_missing_or_unreadable(con: duckdb.DuckDBPyConnection) -> None:
    panel = walmart_like()
    texts = [("2010-02-05", "42.3", "FALSE"), ("2010-02-12", "NA", "true"), ("2010-02-19", "warm", "maybe")]
    rows = [
        {"store": "1", "week": week, "temperature": warm, "is_holiday": flag}
        for week, warm, flag in [*texts, ("2010-02-20", "1", "0")]
    ]

    insert_raw(con, panel, [RawFile("features", rows)])
    clean_all(con, panel)

    found = con.execute(
        "SELECT store, temperature, is_holiday, t FROM cleaned.features ORDER BY t"
    ).fetchall()
    assert found == [(1, 42.3, False, 1047), (1, None, True, 1048), (1, None, None, 1049)]
    assert [(line, rule) for _, line, rule, _ in rejected(con)] == [
        (4, "attribute_unreadable"),
        (4, "attribute_unreadable"),
        (5, "not_a_period"),
    ]


# Content version

BASE = [("2017-06-10", str(store), "73", f"{100.25 * store}") for store in range(1, 9)]


def version(*files: Sequence[tuple[str | None, ...]]) -> str:
    with memory_warehouse() as con:
        clean(con, *(turnover(*rows) for rows in files))
        return cleaning.content_version(con, PANEL)


def test_the_version_is_that_of_the_values_whatever_their_files_and_order() -> None:
    once = version(BASE)

    assert version(BASE[5:], BASE[2:5], BASE[:2]) == once
    assert version(BASE[::-1]) == once
    assert version([(week, f"{store}.0", d, f"+{value}0") for week, store, d, value in BASE]) == once
    assert version(BASE[:3], [("2017-06-10", "1", "73", "100.25")], BASE) == once


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param([("2017-06-10", "1", "73", "100.26"), *BASE[1:]], id="value"),
        pytest.param([("2017-06-17", "1", "73", "100.25"), *BASE[1:]], id="week"),
        pytest.param([("2017-06-10", "9", "73", "100.25"), *BASE[1:]], id="store"),
        pytest.param(BASE[1:], id="a row less"),
        pytest.param([*BASE, ("2017-06-17", "1", "73", "1")], id="a row more"),
        pytest.param([], id="no row"),
    ],
)
def test_the_version_changes_with_any_value(changed: list[tuple[str | None, ...]]) -> None:
    assert version(changed) != version(BASE)


def test_the_version_tells_texts_apart_that_look_alike_when_joined() -> None:
    two_texts = [{"name": "size"}, {"name": "colour"}]
    panel = make_panel(static=[{"name": "shops", "keys": ["shop"], "columns": two_texts}])
    versions = set()

    for size, colour in (("a|b", "c"), ("a", "b|c"), ("a", None), (None, "a")):
        with memory_warehouse() as con:
            insert_raw(con, panel, [RawFile("shops", [{"shop": "1", "size": size, "colour": colour}])])
            clean_all(con, panel)
            versions.add(cleaning.content_version(con, panel))

    assert len(versions) == 4


# From files on disk


def test_landed_files_are_cleaned_with_their_names_and_physical_lines(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "home" / "warehouse.duckdb")
    contents = {
        "a.csv": f"{HEADER}\n2017-06-10,1,73,1.5\n\n2017-06-10,1\n2017-06-10,2,73,1,5\n"
        "2017-06-10,2,73,oops\n",
        "b.csv": f"{HEADER.replace(',', ';')}\r\n2017-06-10;1;73;2,5\r\n2017-06-10;3;73;NA\r\n",
    }
    for name, content in contents.items():
        land_text(tmp_path / "landing", warehouse, PANEL, name, content)

    with warehouse.transaction() as con:
        clean_all(con, PANEL)
        kept, turned_away = cleaned(con, "store, turnover, file_no, line"), rejected(con)

    assert kept == [(1, 2.5, 2, 2)]
    assert [row[:3] for row in turned_away] == [
        ("a.csv", 4, "malformed_row"),
        ("a.csv", 5, "malformed_row"),
        ("a.csv", 6, "not_a_number"),
        ("b.csv", 3, "value_missing"),
    ]
    assert turned_away[0][3] == "2 fields instead of 4: 2017-06-10,1"


def test_cleaning_again_gives_the_same_tables(con: duckdb.DuckDBPyConnection) -> None:
    clean(con, stores("1"), turnover(*BASE), replace(turnover(*BASE[:2]), lines=[9, 4]))
    before = pd.DataFrame(cleaned(con, "*")), rejected(con), cleaning.content_version(con, PANEL)

    clean_all(con, PANEL)

    pd.testing.assert_frame_equal(pd.DataFrame(cleaned(con, "*")), before[0])
    assert (rejected(con), cleaning.content_version(con, PANEL)) == before[1:]
