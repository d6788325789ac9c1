"""Periods and the calendar facts that fall in them."""

from datetime import date, timedelta

import duckdb
import holidays as holiday_calendars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.core.calendar import calendar_table, holidays_between, index_of, label_of, label_sql
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets_tests import oracles
from turnover_assets_tests.factories import daily, make_panel, walmart_like

PANELS = [
    pytest.param(default_panel(), id="weeks by their first day"),
    pytest.param(walmart_like(), id="weeks by their last day"),
    pytest.param(daily(), id="days"),
]
PERIODS = st.integers(-2000, 11_000)


@pytest.mark.parametrize("panel", PANELS)
@given(t=PERIODS)
def test_a_period_comes_back_from_its_label(panel: PanelSpec, t: int) -> None:
    assert index_of(panel, label_of(panel, t)) == t


@pytest.mark.parametrize("panel", PANELS)
@given(t=PERIODS)
def test_periods_follow_each_other_without_a_gap(panel: PanelSpec, t: int) -> None:
    assert label_of(panel, t + 1) - label_of(panel, t) == timedelta(days=panel.frequency.days)


@pytest.mark.parametrize(
    ("panel", "label", "weekday"),
    [(default_panel(), date(2017, 8, 5), "Saturday"), (walmart_like(), date(2012, 10, 26), "Friday")],
    ids=["start", "end"],
)
def test_labels_fall_on_the_weekday_of_the_panel(panel: PanelSpec, label: date, weekday: str) -> None:
    assert label_of(panel, index_of(panel, label)) == label
    assert label_of(panel, 0).strftime("%A") == weekday


def test_a_week_by_its_last_day_is_the_one_that_starts_six_days_before() -> None:
    by_end, by_start = walmart_like(), default_panel()

    assert index_of(by_end, date(2012, 10, 26)) == index_of(by_start, date(2012, 10, 20))


@pytest.mark.parametrize(
    ("panel", "label", "message"),
    [
        (default_panel(), date(2017, 8, 6), "2017-08-06 is a sunday, .* by their start on a saturday"),
        (default_panel(), date.min, "0001-01-01 is a monday, .* by their start on a saturday"),
        (walmart_like(), date(2012, 10, 27), "2012-10-27 is a saturday, .* by their end on a friday"),
    ],
    ids=["start", "long before", "end"],
)
def test_a_date_on_another_weekday_is_no_label(panel: PanelSpec, label: date, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        index_of(panel, label)


@pytest.mark.parametrize("panel", PANELS)
def test_sql_gives_the_same_labels(panel: PanelSpec) -> None:
    periods = [-60, -1, 0, 1, 1440, 9999]

    rows = duckdb.sql(f"SELECT t, {label_sql(panel, 't')} FROM (SELECT unnest({periods}) AS t)").fetchall()

    assert dict(rows) == {t: label_of(panel, t) for t in periods}


def test_holidays_are_those_of_the_country_and_its_part() -> None:
    panel = make_panel(holidays={"country": "DE", "subdivision": "BY"})
    expected = holiday_calendars.country_holidays("DE", subdiv="BY", years=[2023, 2024])

    found = holidays_between(panel, date(2023, 6, 1), date(2024, 1, 6))

    assert list(found) == sorted(day for day in expected if date(2023, 6, 1) <= day <= date(2024, 1, 6))
    assert date(2024, 1, 6) in found  # Epiphany, a holiday in Bavaria


def test_a_panel_without_a_calendar_has_no_holidays() -> None:
    panel = daily()

    table = calendar_table(panel, 12_000, 12_400)

    assert holidays_between(panel, date(2023, 1, 1), date(2023, 12, 31)) == {}
    assert not table.filter(like="holidays").to_numpy().any()


@pytest.mark.parametrize(
    ("panel", "country"),
    [(default_panel(), "FR"), (walmart_like(), "US"), (daily(), None)],
    ids=["weeks by their first day", "weeks by their last day", "days"],
)
def test_the_calendar_agrees_with_a_count_day_by_day(panel: PanelSpec, country: str | None) -> None:
    days = panel.frequency.days
    # A leap year and the years around it.
    first, last = ((date(year, 1, 20) - date(1990, 1, 1)).days // days for year in (2019, 2022))

    table = calendar_table(panel, first, last)

    assert table["t"].tolist() == list(range(first, last + 1))
    for row in table.to_dict("records"):
        start = label_of(panel, row["t"]) - timedelta(
            days=0 if panel.series.time.label == "start" else days - 1
        )
        expected = oracles.calendar_features(start, days, panel.frequency.season, country)
        assert {name: row[name] for name in expected} == pytest.approx(expected)
