"""Reports: months counted day by day, seasons week by week, and the case study's known totals."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from turnover_assets.core import reports
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets.storage import landing, landing_folder
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests import oracles
from turnover_assets_tests.factories import (
    clean_all,
    daily,
    daily_history,
    default_history,
    insert_frames,
    memory_warehouse,
    walmart_history,
    walmart_like,
)

BY_REGION = default_panel().model_copy(update={"levels": ("region", "department")})
CASES = [
    pytest.param((default_panel(), default_history()), id="by department"),
    pytest.param((BY_REGION, default_history()), id="by an attribute that one store lacks"),
    pytest.param((walmart_like(), walmart_history()), id="weeks by their last day"),
    pytest.param((daily(), daily_history()), id="days"),
]
Amounts = list[tuple[object, date, float]]


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Iterator[tuple[PanelSpec, duckdb.DuckDBPyConnection, Amounts]]:
    """A panel, its cleaned tables, and its amounts by member of the reporting level and first day."""
    panel, frames = request.param
    with memory_warehouse() as con:
        insert_frames(con, panel, frames)
        yield panel, con, amounts(panel, frames)


def amounts(panel: PanelSpec, frames: dict[str, pd.DataFrame]) -> Amounts:
    sales, days = frames[panel.series.name], panel.frequency.days
    if panel.report_level not in panel.keys:
        sales = sales.merge(frames["stores"], on="store")
    last_day = timedelta(days=days - 1 if panel.series.time.label == "end" else 0)
    labels = pd.to_datetime(sales[panel.time], format=panel.series.time.format or "%Y-%m-%d").dt.date
    members = [None if pd.isna(m) else m for m in sales[panel.report_level]]
    firsts = [label - last_day for label in labels]
    return list(zip(map(as_number, members), firsts, sales[panel.target], strict=True))


def as_number(member: object) -> object:
    """Regions are texts in the frames, and whole numbers once cleaned."""
    return int(member) if isinstance(member, str) and member.isdigit() else member


def plain(member: object) -> object:
    return None if pd.isna(member) else member


def test_months_agree_with_a_count_day_by_day(
    case: tuple[PanelSpec, duckdb.DuckDBPyConnection, Amounts],
) -> None:
    panel, con, rows = case
    expected = oracles.monthly_turnover(rows, panel.frequency.days)

    table = reports.monthly_turnover(con, panel)

    assert list(table.columns) == [
        "year", panel.report_level, "month", panel.target, f"{panel.target}_year", "rank_in_year",
    ]  # fmt: skip
    found = {
        (row["year"], plain(row[panel.report_level]), row["month"]): row[panel.target]
        for row in table.to_dict("records")
    }
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert len(table) == len(expected)


def test_years_add_up_and_are_ranked_from_the_largest(
    case: tuple[PanelSpec, duckdb.DuckDBPyConnection, Amounts],
) -> None:
    panel, con, _ = case
    level, target = panel.report_level, panel.target

    table = reports.monthly_turnover(con, panel)

    years = table.groupby(["year", level, "rank_in_year"], dropna=False).agg(
        total=(target, "sum"), given=(f"{target}_year", "first"), months=("month", "size")
    )
    assert years["total"].to_numpy() == pytest.approx(years["given"].to_numpy())
    ranks = years.reset_index().sort_values(["year", "given"], ascending=[True, False])
    for _, year in ranks.groupby("year"):
        assert year["rank_in_year"].tolist() == list(range(1, len(year) + 1))
    assert table["year"].is_monotonic_increasing
    assert all(group["rank_in_year"].is_monotonic_increasing for _, group in table.groupby("year"))


def test_the_season_agrees_with_a_count_week_by_week(
    case: tuple[PanelSpec, duckdb.DuckDBPyConnection, Amounts],
) -> None:
    panel, con, rows = case
    expected = oracles.seasonal_profile(rows, panel.frequency.days)

    table = reports.seasonal_profile(con, panel)

    found = {
        (plain(row[panel.report_level]), row["week_of_year"]): row["share"]
        for row in table.to_dict("records")
    }
    assert found == pytest.approx(expected, rel=1e-9)


def test_shares_add_up_and_the_three_highest_weeks_are_peaks(
    case: tuple[PanelSpec, duckdb.DuckDBPyConnection, Amounts],
) -> None:
    panel, con, _ = case

    table = reports.seasonal_profile(con, panel)

    for _, member in table.groupby(panel.report_level, dropna=False):
        assert member["share"].sum() == pytest.approx(1.0)
        assert member["index"].mean() == pytest.approx(1.0)
        assert member["week_of_year"].tolist() == list(range(1, 53))
        assert set(member.index[member["peak"]]) == set(member["share"].nlargest(3).index)
        assert member["years"].nunique() == 1


def test_the_season_comes_from_whole_years_where_there_are_any(con: duckdb.DuckDBPyConnection) -> None:
    panel = default_panel()
    weeks = [date(2015, 1, 3) + timedelta(weeks=t) for t in range(75)]
    # Flat in the whole year; huge in the piece of the next one.
    rows = [(2, 73, week.isoformat(), 10.0 if week.year == 2015 else 999.0) for week in weeks]
    stores = default_history()["stores"]
    sales = pd.DataFrame(rows, columns=["store", "department", "week", "turnover"])
    insert_frames(con, panel, {"stores": stores, "turnover": sales})

    table = reports.seasonal_profile(con, panel)

    assert table["years"].tolist() == [1] * 52
    assert table["index"].to_numpy() == pytest.approx(1.0)


def test_the_season_is_that_of_adjusted_and_months_of_reported_amounts(
    con: duckdb.DuckDBPyConnection,
) -> None:
    panel = default_panel()
    insert_frames(con, panel, default_history())
    months, season = reports.monthly_turnover(con, panel), reports.seasonal_profile(con, panel)

    con.execute("UPDATE cleaned.turnover SET turnover_adjusted = turnover * (1 + t % 3)")

    pd.testing.assert_frame_equal(reports.monthly_turnover(con, panel), months, check_exact=False)
    assert not reports.seasonal_profile(con, panel)["share"].round(6).equals(season["share"].round(6))


def test_the_history_adds_up_per_period_and_member(
    case: tuple[PanelSpec, duckdb.DuckDBPyConnection, Amounts],
) -> None:
    panel, con, rows = case

    table = reports.level_history(con, panel)

    assert list(table.columns) == [panel.time, panel.report_level, panel.target]
    assert not table.duplicated([panel.time, panel.report_level]).any()
    assert table[panel.target].sum() == pytest.approx(sum(amount for *_, amount in rows))
    assert len(table) == len({(member, first) for member, first, _ in rows})


@pytest.mark.real_data
def test_the_case_study_gives_its_known_totals_of_2016(real_data: Path, tmp_path: Path) -> None:
    panel, warehouse = default_panel(), Warehouse(tmp_path / "warehouse.duckdb")
    landed = [
        landing.land(warehouse, panel, file, "test run")
        for file in landing_folder.scan(real_data / "decathlon")
    ]

    with warehouse.transaction() as con:
        clean_all(con, panel)
        table = reports.monthly_turnover(con, panel)

    assert {record.status for record in landed} == {"accepted"}
    totals = table[table["year"] == 2016].groupby("department", sort=False)["turnover"].sum()
    assert totals.index.tolist() == [127, 117, 88, 73]
    assert totals.tolist() == pytest.approx([3.340203e07, 6.322402e06, 5.654691e06, 1.960281e06], rel=1e-6)
