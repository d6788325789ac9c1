"""Another retailer by a panel file alone: from its files to published forecasts, sums and explanations."""

import gzip
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.calendar import index_of
from turnover_assets.core.explanations import effect_columns
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import load_settings
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.factories import BASELINES_ONLY, quiet
from turnover_assets_tests.other_retailers import (
    PANELS,
    OtherRetailer,
    holiday_week,
    is_promoted,
    run_on,
    school_is_out,
    write_daily_shops,
    write_us_stores,
)

FRIDAY, SUNDAY = 4, 6
pytestmark = pytest.mark.slow  # each home takes many seconds to make
BOUNDS = ["lower_95", "lower_80", "forecast", "upper_80", "upper_95"]


@pytest.fixture(scope="module")
def us_stores(tmp_path_factory: pytest.TempPathFactory) -> OtherRetailer:
    """Weeks labelled by their Friday, forecast by a baseline."""
    root = tmp_path_factory.mktemp("us-stores")
    sales = write_us_stores(root / "files")
    return run_on(root, "us-stores", sales, training_share=BASELINES_ONLY, backtest_windows=2)


@pytest.fixture(scope="module")
def daily_shops(tmp_path_factory: pytest.TempPathFactory) -> OtherRetailer:
    """Days, forecast by whatever proves best; takes more than ten seconds."""
    root = tmp_path_factory.mktemp("daily-shops")
    sales = write_daily_shops(root / "files")
    return run_on(root, "daily-shops", sales, training_share=0.05, backtest_windows=3)


def published(retailer: OtherRetailer) -> Snapshot:
    return current(retailer.settings.published_path)


def scoring(retailer: OtherRetailer) -> pd.DataFrame:
    """The feature rows that were forecast, with their keys and the day that labels the target period."""
    keys = ", ".join(f"s.{key}" for key in retailer.settings.panel_spec.keys)
    with duckdb.connect(str(retailer.settings.warehouse_path), read_only=True) as con:
        return con.execute(
            f"SELECT {keys}, r.* FROM features.scoring AS r JOIN features.series AS s USING (series_id)"
        ).df()


def as_dates(column: pd.Series) -> list[date]:
    return pd.to_datetime(column).dt.date.tolist()


# Weeks labelled by their Friday ------------------------------------------------------------------


def test_files_with_cr_na_and_negative_values_are_taken_whole(us_stores: OtherRetailer) -> None:
    snapshot, keys = published(us_stores), ["store", "department", "week"]

    sales = snapshot.read("sales")

    assert {record.name for record in us_stores.outcome.accepted} == {
        "train.csv.gz",
        "features.csv",
        "stores.csv",
    }
    assert us_stores.outcome.refused == []
    assert snapshot.read("rejected").empty
    sales["week"] = as_dates(sales["week"])
    pd.testing.assert_frame_equal(
        sales[[*keys, "weekly_sales"]],
        us_stores.sales.sort_values(keys, ignore_index=True),
        check_dtype=False,
    )
    assert (sales["weekly_sales"] < 0).any()


def test_each_series_is_forecast_for_the_next_eight_fridays(us_stores: OtherRetailer) -> None:
    last = max(us_stores.sales["week"])

    forecasts = published(us_stores).read("forecasts")

    assert list(forecasts.columns[:5]) == ["store", "department", "cutoff", "week", "horizon"]
    assert set(as_dates(forecasts["cutoff"])) == {last}
    expected = [last + timedelta(weeks=h) for h in range(1, 9)]
    assert {day.weekday() for day in expected} == {FRIDAY}
    for _, weeks in forecasts.groupby(["store", "department"])["week"]:
        assert as_dates(weeks) == expected
    assert forecasts.groupby(["store", "department"]).ngroups == 9
    bounds = forecasts[BOUNDS].to_numpy()
    assert (np.diff(bounds) >= 0).all()
    assert (bounds >= 0).all()  # weekly_sales are not, but the panel says that forecasts are


def test_sums_by_department_store_and_store_type_agree_with_their_parts(us_stores: OtherRetailer) -> None:
    snapshot = published(us_stores)

    sums = snapshot.read("aggregates")

    parts = snapshot.read("forecasts").assign(store_type=lambda f: f["store"].map({1: "A", 2: "A", 3: "B"}))
    assert sorted(sums["level"].unique()) == ["department", "store", "store_type", "total"]
    for level in ("department", "store", "store_type"):
        own = sums[sums["level"] == level].set_index(["member", "horizon"])["forecast"].sort_index()
        added = parts.groupby([parts[level].astype(str), "horizon"])["forecast"].sum()
        np.testing.assert_allclose(own, added)
    assert set(as_dates(sums["week"])) == set(as_dates(parts["week"]))


def test_explanations_speak_of_the_panels_own_levels_and_unit(us_stores: OtherRetailer) -> None:
    panel = us_stores.settings.panel_spec

    explained = published(us_stores).read("explanations")

    effects = list(effect_columns(panel).values())
    assert {"effect_department", "effect_store", "effect_store_type", "effect_known_ahead"} <= set(effects)
    np.testing.assert_allclose(explained["reference"] + explained[effects].sum(axis=1), explained["forecast"])
    assert explained["sentence"].str.contains(" USD expected, ").all()
    assert explained["sentence"].str.contains("week").all()


def test_plans_are_known_for_the_weeks_to_forecast_and_missing_where_none_is_written(
    us_stores: OtherRetailer,
) -> None:
    rows = scoring(us_stores)

    weeks = [max(us_stores.sales["week"]) + timedelta(weeks=h) for h in rows["horizon"]]

    assert rows["known_is_holiday"].tolist() == [float(holiday_week(week)) for week in weeks]
    assert 0 < rows["known_markdown_1"].isna().mean() < 1
    assert "known_temperature" not in rows  # a column of the files that the panel leaves out


def test_a_second_run_with_the_panel_of_another_retailer_changes_nothing(us_stores: OtherRetailer) -> None:
    before = published(us_stores).name

    outcome = bring_up_to_date(us_stores.settings, us_stores.folder, quiet)

    assert not outcome.changed
    assert published(us_stores).name == before


# Days --------------------------------------------------------------------------------------------


def test_each_shop_is_forecast_for_the_next_fourteen_days(daily_shops: OtherRetailer) -> None:
    last = max(daily_shops.sales["sold_on"])

    forecasts = published(daily_shops).read("forecasts")

    assert list(forecasts.columns[:4]) == ["shop", "cutoff", "sold_on", "horizon"]
    assert set(forecasts["shop"]) == set(daily_shops.sales["shop"])
    for _, days in forecasts.groupby("shop")["sold_on"]:
        assert as_dates(days) == [last + timedelta(days=h) for h in range(1, 15)]
    assert published(daily_shops).read("rejected").empty


def test_days_on_which_a_shop_is_closed_are_forecast_as_nothing(daily_shops: OtherRetailer) -> None:
    snapshot = published(daily_shops)
    forecasts, explained = snapshot.read("forecasts"), snapshot.read("explanations")

    sundays = pd.Series([day.weekday() == SUNDAY for day in as_dates(forecasts["sold_on"])])

    closed = sundays & (forecasts["shop"] != "Station")
    assert closed.sum() == 2 * 3
    assert (forecasts.loc[closed, BOUNDS] == 0).all(axis=None)
    assert (forecasts.loc[~closed, "forecast"] > 0).all()
    assert explained["forecast"].tolist() == forecasts["forecast"].tolist()
    sentences = explained.loc[closed, "sentence"]
    assert sentences.str.startswith("0 EUR expected, ").all()
    assert sentences.str.contains("nothing is reported on this day of the week").all()
    sums = snapshot.read("aggregates")
    total = sums[sums["level"] == "total"].set_index("sold_on")["forecast"]
    station = forecasts[sundays & ~closed].set_index("sold_on")["forecast"]
    np.testing.assert_allclose(total[station.index], station)


def test_refunds_may_make_a_day_negative_and_so_may_bounds(daily_shops: OtherRetailer) -> None:
    forecasts = published(daily_shops).read("forecasts")

    assert (daily_shops.sales["amount"] < 0).any()
    assert (forecasts["lower_95"] < 0).any()
    assert (np.diff(forecasts[BOUNDS].to_numpy()) >= 0).all()


def test_promotions_by_shop_and_a_school_calendar_for_all_are_known_for_each_day(
    daily_shops: OtherRetailer,
) -> None:
    rows = scoring(daily_shops)

    days = [max(daily_shops.sales["sold_on"]) + timedelta(days=h) for h in rows["horizon"]]

    promoted = [is_promoted(shop, day) for shop, day in zip(rows["shop"], days, strict=True)]
    assert rows["known_on_offer"].tolist() == promoted
    assert rows["known_school_is_out"].tolist() == [school_is_out(day) for day in days]
    assert len(set(promoted)) == 2
    assert rows["known_school_is_out"].nunique() == 2


def test_a_model_that_knows_what_is_planned_beats_last_years_days(daily_shops: OtherRetailer) -> None:
    snapshot = published(daily_shops)

    wape = snapshot.read("accuracy").set_index("model")["wape"]
    checks = snapshot.read("gate_checks")

    assert wape["xgboost"] < 0.7 * wape["seasonal_naive"]
    assert wape.idxmin() == snapshot.facts["model"]["candidate"]
    assert checks["passed"].all()
    assert len(checks)


def test_another_day_moves_the_cutoff_without_training(daily_shops: OtherRetailer, tmp_path: Path) -> None:
    before = published(daily_shops)
    last = max(daily_shops.sales["sold_on"])
    day = (last + timedelta(days=1)).strftime("%d/%m/%Y")
    lines = [f"{shop},{day},100" for shop in sorted(set(daily_shops.sales["shop"]))]
    (tmp_path / "new.csv").write_text("\n".join(["shop_code,date,net_amount", *lines]) + "\n")

    outcome = bring_up_to_date(daily_shops.settings, tmp_path, quiet)

    after = published(daily_shops)
    assert outcome.refreshed
    assert after.facts["cutoff"] == str(last + timedelta(days=1))
    assert after.facts["model"]["version"] == before.facts["model"]["version"]


# Real files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walmart(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> OtherRetailer:
    """The public files as they are, with the panel of the documentation."""
    folder = real_data / "walmart"
    settings = load_settings(
        home=tmp_path_factory.mktemp("walmart"),
        panel=PANELS / "us-stores.toml",
        training_share=BASELINES_ONLY,
        backtest_windows=2,
    )
    outcome = bring_up_to_date(settings, folder, quiet)
    return OtherRetailer(settings, folder, outcome, pd.read_csv(folder / "train.csv.gz"))


@pytest.mark.real_data
@pytest.mark.timeout(900)
def test_walmarts_files_are_forecast_and_no_row_is_lost(walmart: OtherRetailer) -> None:
    snapshot, panel = published(walmart), walmart.settings.panel_spec
    rejected = snapshot.read("rejected")

    forecasts, sales = snapshot.read("forecasts"), snapshot.read("sales")

    assert set(as_dates(forecasts["cutoff"])) == {date(2012, 6, 29)}
    assert sorted(set(as_dates(forecasts["week"]))) == [
        date(2012, 7, 6) + timedelta(weeks=h) for h in range(8)
    ]
    lost = rejected[(rejected["action"] == "row rejected") & (rejected["table_name"] == "sales")]
    assert len(sales) + len(lost) == len(walmart.sales)
    assert sales["weekly_sales"].sum() == pytest.approx(walmart.sales["Weekly_Sales"].sum())
    with gzip.open(walmart.folder / "features.csv.gz", "rt") as stream:
        plans = sum(1 for _ in stream) - 1
    with duckdb.connect(str(walmart.settings.warehouse_path), read_only=True) as con:
        kept = {name: int(con.table(f"cleaned.{name}").count("*").fetchall()[0][0]) for name in panel.tables}
    assert kept == {"sales": len(sales), "stores": 45, "plans": plans}
    assert index_of(panel, date(2012, 6, 29)) == scoring(walmart)["cutoff"].max()
