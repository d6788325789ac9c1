"""Profiles: against pandas, kept over time, and bounded."""

from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core import profiling
from turnover_assets.core.calendar import index_of
from turnover_assets.core.profiling import BY_FILE, BY_PERIOD, PROFILE, ProfiledRun, keep_profile, newest_run
from turnover_assets.panel import default_panel
from turnover_assets_tests.factories import (
    RawFile,
    clean_all,
    default_history,
    insert_frames,
    insert_raw,
    walmart_history,
    walmart_like,
)

PANEL = default_panel()
NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)


def run(number: int = 1) -> ProfiledRun:
    return ProfiledRun(f"run {number}", NOW + timedelta(hours=number), f"version {number}")


def profiled(con: duckdb.DuckDBPyConnection, table: str) -> pd.DataFrame:
    """The profile of a table, by column."""
    found = con.execute(f"SELECT * FROM {PROFILE} WHERE table_name = ?", [table]).df()
    return found.set_index("column_name")


def test_a_table_is_described_by_column_as_pandas_does(con: duckdb.DuckDBPyConnection) -> None:
    frames = default_history()
    insert_frames(con, PANEL, frames)

    keep_profile(con, PANEL, run())

    sales, found = frames["turnover"], profiled(con, "cleaned.turnover")
    assert (found["rows"] == len(sales)).all()
    assert (found["distinct_keys"] == len(sales)).all()
    assert found.loc["store", "distinct_values"] == sales["store"].nunique()
    assert found.loc["adjustment_id", "nulls"] == len(sales)
    measured = found.loc["turnover", ["sum", "mean", "min", "max"]].astype(float)
    assert measured.tolist() == pytest.approx(sales["turnover"].agg(["sum", "mean", "min", "max"]).tolist())
    assert found.loc[["store", "t", "line", "file_no"], "sum"].isna().all()
    assert profiled(con, "cleaned.stores").loc["region", "nulls"] == 1
    raw = profiled(con, "raw.turnover")
    assert (raw["rows"] == len(sales)).all()
    assert raw["sum"].isna().all()


def test_every_table_that_there_is_has_a_profile(con: duckdb.DuckDBPyConnection) -> None:
    panel = walmart_like()
    insert_frames(con, panel, walmart_history())
    con.execute("CREATE TABLE cleaned.findings AS SELECT 'a' AS finding_id, 2.0 AS factor")

    keep_profile(con, panel, run())

    tables = {name for (name,) in con.execute(f"SELECT DISTINCT table_name FROM {PROFILE}").fetchall()}
    assert tables == {
        "raw.sales",
        "cleaned.sales",
        "cleaned.stores",
        "cleaned.features",
        "cleaned.restatements",
        "cleaned.findings",
        "cleaned.rejected",
    }
    assert profiled(con, "cleaned.findings").loc["factor", "sum"] == 2.0
    assert profiled(con, "cleaned.features")["sum"].notna().tolist().count(True) == 1  # not the flag


def test_an_empty_table_has_a_profile_too(con: duckdb.DuckDBPyConnection) -> None:
    clean_all(con, PANEL)

    keep_profile(con, PANEL, run())

    found = profiled(con, "cleaned.turnover")
    assert (found["rows"] == 0).all()
    assert found["sum"].isna().all()
    assert con.execute(f"SELECT count(*) FROM {BY_PERIOD}").fetchall() == [(0,)]


def test_runs_are_kept_and_a_run_made_again_counts_once(con: duckdb.DuckDBPyConnection) -> None:
    insert_frames(con, PANEL, default_history())
    for number in (1, 2, 2):
        keep_profile(con, PANEL, run(number))

    rows = con.execute(f"SELECT run_id, count(*) FROM {PROFILE} GROUP BY ALL ORDER BY ALL").fetchall()

    assert [name for name, _ in rows] == ["run 1", "run 2"]
    assert rows[0][1] == rows[1][1]
    assert newest_run(con) == run(2)


def test_only_the_newest_runs_are_kept(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "RUNS_KEPT", 3)
    clean_all(con, PANEL)
    for number in (3, 1, 2, 4, 5):
        keep_profile(con, PANEL, run(number))

    kept = con.execute(f"SELECT DISTINCT run_id FROM {PROFILE} ORDER BY ALL").fetchall()

    assert kept == [("run 3",), ("run 4",), ("run 5",)]


def test_each_file_says_what_became_of_its_rows(con: duckdb.DuckDBPyConnection) -> None:
    def sales(*rows: tuple[str, str, str]) -> RawFile:
        return RawFile(
            "turnover",
            [{"week": week, "store": store, "department": "73", "turnover": y} for week, store, y in rows],
        )

    first = sales(("2017-06-03", "1", "10"), ("2017-06-10", "1", "20"), ("2017-06-10", "2", "a lot"))
    insert_raw(con, PANEL, [first, sales(("2017-06-10", "1", "30"))])
    clean_all(con, PANEL)

    keep_profile(con, PANEL, run())

    found = con.execute(
        f"SELECT rows_landed, rows_in_force, rows_rejected, series, sum, min, max FROM {BY_FILE}"
    ).fetchall()
    assert found == [(3, 1, 1, 1, 10.0, 10.0, 10.0), (1, 1, 0, 1, 30.0, 30.0, 30.0)]


def test_each_period_says_who_reported_of_those_expected(con: duckdb.DuckDBPyConnection) -> None:
    frames = default_history()
    insert_frames(con, PANEL, frames)

    keep_profile(con, PANEL, run())

    sales = frames["turnover"].assign(
        t=[index_of(PANEL, day) for day in pd.to_datetime(frames["turnover"]["week"]).dt.date]
    )
    lives = sales.groupby(["store", "department"])["t"].agg(["min", "max"])
    periods = np.arange(sales["t"].min(), sales["t"].max() + 1)
    expected = [int(((lives["min"] <= t) & (t <= lives["max"])).sum()) for t in periods]
    reported = sales["t"].value_counts().reindex(periods, fill_value=0)
    found = con.execute(f"SELECT * FROM {BY_PERIOD} ORDER BY t").df()
    assert found["t"].tolist() == periods.tolist()
    assert found["expected"].tolist() == expected
    assert found["rows"].tolist() == reported.tolist()
    assert found["coverage"].tolist() == pytest.approx(list(reported / expected))
    by_t = sales.groupby("t")["turnover"]
    assert found["sum"].tolist() == pytest.approx(by_t.sum().tolist())
    assert found["negatives"].sum() == (sales["turnover"] < 0).sum()
    assert found["zeros"].sum() == (sales["turnover"] == 0).sum()


def test_a_period_in_which_nobody_reported_is_there(con: duckdb.DuckDBPyConnection) -> None:
    rows = [
        {"week": week, "store": "1", "department": "73", "turnover": "1"}
        for week in ("2017-06-03", "2017-06-17")
    ]
    insert_raw(con, PANEL, [RawFile("turnover", rows)])
    clean_all(con, PANEL)

    keep_profile(con, PANEL, run())

    found = con.execute(f"SELECT CAST(period AS VARCHAR), rows, coverage, sum FROM {BY_PERIOD}").fetchall()
    assert found == [("2017-06-03", 1, 1.0, 1.0), ("2017-06-10", 0, 0.0, None), ("2017-06-17", 1, 1.0, 1.0)]
