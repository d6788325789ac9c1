"""Drift and stability: distances against slow recomputation, no false alarms, planted changes seen."""

from collections.abc import Callable
from datetime import date
from itertools import pairwise

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.features import feature_names, features
from turnover_assets.core.forecast_history import keep_forecasts
from turnover_assets.core.models import Rows
from turnover_assets.core.monitoring import tables
from turnover_assets.core.monitoring.distances import BINS, DRIFTED, HALF, distance
from turnover_assets.core.monitoring.drift import (
    LEFT_OUT,
    drifted_share,
    feature_drift,
    target_drift,
)
from turnover_assets.core.monitoring.measures import drift_measures, stability_measures
from turnover_assets.core.monitoring.stability import keep_stability, moved, read_pairs
from turnover_assets.panel import PanelSpec
from turnover_assets_tests.factories import daily, make_panel, walmart_like
from turnover_assets_tests.test_forecast_history import forecasts, put_reported

PANEL = make_panel(horizon=3)
START = index_of(PANEL, date(2030, 6, 3))

# Distances ---------------------------------------------------------------------------------------


def psi_oracle(current: np.ndarray, reference: np.ndarray, units: tuple[float, float]) -> float:
    """PSI, value by value: each is put into the bin that the docstring says."""
    known = sorted(v for v in reference if not np.isnan(v))
    edges = sorted({known[int(np.ceil(len(known) * k / BINS)) - 1] for k in range(1, BINS)})
    heavy = {edge for edge in edges if sum(v == edge for v in known) >= len(known) / BINS}

    def bin_of(value: float) -> str:
        if np.isnan(value):
            return "missing"
        if value in heavy:
            return f"just {value + 0.0}"  # -0.0 is 0.0
        return f"up to {next((edge for edge in edges if value <= edge), 'the end')}"

    bins = [[bin_of(value) for value in values] for values in (current, reference)]
    names = {*bins[0], *bins[1]}
    total = 0.0
    for name in names:
        p, q = (
            (b.count(name) / len(b) * n + HALF) / (n + HALF * len(names))
            for b, n in zip(bins, units, strict=True)
        )
        total += (p - q) * np.log(p / q)
    return float(total)


def wasserstein_oracle(current: np.ndarray, reference: np.ndarray) -> float:
    """The area between the two distribution functions."""
    points = np.unique(np.concatenate([current, reference]))
    area = sum(
        abs((current <= low).mean() - (reference <= low).mean()) * (high - low)
        for low, high in pairwise(points)
    )
    return float(area / reference.std())


few_values = st.sampled_from([np.nan, 0.0, 0.0, 1.0, 2.5, 3.0, -7.0])
samples = arrays(float, st.integers(3, 60), elements=st.one_of(few_values, st.floats(-9, 9, width=32)))


@given(samples, samples)
def test_distances_are_what_slow_recomputation_gives(current: np.ndarray, reference: np.ndarray) -> None:
    units = (len(current) / 2, float(len(reference)))

    found = distance(current, reference, units)

    known, known_before = current[~np.isnan(current)], reference[~np.isnan(reference)]
    if not len(known) or not len(known_before):
        assert np.isnan(found.psi)
        assert not found.is_drifted
        return
    assert found.psi == pytest.approx(psi_oracle(current, reference, units), abs=1e-12)
    if known_before.std() > 0:
        assert found.wasserstein == pytest.approx(wasserstein_oracle(known, known_before), rel=1e-6, abs=1e-9)


def test_a_sample_is_no_distance_from_itself() -> None:
    values = np.array([0.0] * 40 + [np.nan] * 5 + list(range(55)))

    found = distance(values, values, (100, 100))

    assert (found.psi, found.wasserstein, found.is_drifted) == (0.0, 0.0, False)


@pytest.mark.parametrize("change", ["moved", "wider", "more zeros", "more missing"])
def test_a_shifted_population_has_drifted(change: str) -> None:
    rng = np.random.default_rng(1)
    reference, current = rng.normal(10.0, 2.0, 600), rng.normal(10.0, 2.0, 600)
    if change == "moved":
        current += 2.0
    elif change == "wider":
        current = 10.0 + 2.5 * (current - 10.0)
    else:
        current[:200] = 0.0 if change == "more zeros" else np.nan

    assert distance(current, reference, (600, 600)).is_drifted


@pytest.mark.parametrize("units", [8, 20, 60, 300, 3000])
@pytest.mark.parametrize("kind", ["even", "skewed", "many zeros"])
def test_the_same_population_hardly_ever_drifts_however_few_its_units(units: int, kind: str) -> None:
    rng = np.random.default_rng(units)
    alarms = 0
    for _ in range(100):
        draws = [rng.gamma(1.0, 1.0, units) if kind == "skewed" else rng.normal(size=units) for _ in range(2)]
        if kind == "many zeros":
            draws = [np.where(rng.random(units) < 0.4, 0.0, d) for d in draws]
        alarms += distance(draws[0], draws[1], (units, units)).is_drifted

    assert alarms <= 3  # of 100


def test_for_many_units_the_limit_is_that_of_the_effect_size() -> None:
    values = np.arange(20_000.0)

    assert DRIFTED <= distance(values, values, (20_000, 20_000)).limit < DRIFTED + 0.01


# Features ----------------------------------------------------------------------------------------


def rows_of(panel: PanelSpec, series: int, seed: int, change: Callable[[str], float]) -> Rows:
    """Rows whose features are noise of a series, or of a level's member where they are that level's alone."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(series), panel.horizon)
    members = members_of(series)
    x = np.empty((len(ids), len(feature_names(panel))), dtype=np.float32)
    for i, feature in enumerate(features(panel)):
        levels = [name for name in panel.level_names if {f"c_{name}", f"b_{name}"} & feature.relations]
        alone = levels and not feature.relations & {"k", "r", "s"}
        whose = members[levels[0]].to_numpy() if alone else np.arange(series)
        if "v_features" in feature.relations:
            whose = members["store"].to_numpy()
        x[:, i] = rng.normal(1.0, 0.2, series)[whose[ids]] + change(feature.name)
    horizons = np.tile(np.arange(1, panel.horizon + 1), series)
    return Rows(
        pd.DataFrame({"series_id": ids, "cutoff": 1, "horizon": horizons}), x, tuple(feature_names(panel))
    )


def members_of(series: int) -> pd.DataFrame:
    ids = np.arange(series)
    return pd.DataFrame({"series_id": ids, "store": ids // 3, "dept": ids % 3})


def still(_name: str) -> float:
    return 0.0


@pytest.mark.parametrize("series", [12, 60, 600])
def test_without_a_drift_hardly_a_feature_drifts(series: int) -> None:
    panel = walmart_like()

    table = pd.DataFrame(
        feature_drift(
            panel, rows_of(panel, series, 1, still), rows_of(panel, series, 2, still), members_of(series)
        )
    )

    assert drifted_share(table) <= 0.03
    groups = {f.name: f.group for f in features(panel)}
    assert {groups[name] for name in table["name"]} & set(LEFT_OUT) == set()
    assert len(table) == sum(group not in LEFT_OUT for group in groups.values())


def test_a_planted_drift_is_seen_where_it_is() -> None:
    panel = walmart_like()
    moved_names = {"lag_0", "mean_4", "zero_share"}

    table = pd.DataFrame(
        feature_drift(
            panel,
            rows_of(panel, 300, 1, lambda name: 0.3 * (name in moved_names)),
            rows_of(panel, 300, 2, still),
            members_of(300),
        )
    ).set_index("name")

    assert set(table.index[table["is_drifted"]]) == moved_names
    assert table.loc["lag_0", "mean"] == pytest.approx(1.3, abs=0.05)
    assert table.loc["lag_0", "wasserstein"] == pytest.approx(1.5, abs=0.25)  # 0.3 of 0.2


def test_a_feature_that_one_side_lacks_is_said_so_and_not_counted() -> None:
    panel = walmart_like()
    before = rows_of(panel, 60, 1, lambda name: np.nan if name == "lag_0" else 0.0)

    table = pd.DataFrame(feature_drift(panel, rows_of(panel, 60, 2, still), before, members_of(60)))

    lacking = table.set_index("name").loc["lag_0"]
    assert (lacking["missing_share"], lacking["reference_missing_share"]) == (0.0, 1.0)
    assert np.isnan(lacking["psi"])
    assert not lacking["is_drifted"]
    assert drifted_share(table) == table[table["psi"].notna()]["is_drifted"].mean()


def test_without_a_year_before_nothing_is_known() -> None:
    panel = walmart_like()
    rows = rows_of(panel, 12, 1, still)

    table = pd.DataFrame(feature_drift(panel, rows, rows.where(np.zeros(len(rows), bool)), members_of(12)))

    assert table["psi"].isna().all()
    assert np.isnan(drifted_share(table))
    assert drift_measures(table).empty


# The target --------------------------------------------------------------------------------------


def put_history(con: duckdb.DuckDBPyConnection, panel: PanelSpec, start: int, growth: float) -> None:
    """Two years of forty shops, with a season; the last periods grown."""
    rng = np.random.default_rng(4)
    season, key = panel.frequency.season, panel.keys[0]
    text = panel.series.keys[0].type == "text"
    rows = [
        {key: f"shop {shop}" if text else shop, "t": start - k, "amount": value}
        for shop in range(40)
        for k in range(2 * season)
        for value in [
            (10.0 ** (shop % 4))
            * (2 + np.sin(2 * np.pi * k / season))
            * rng.gamma(50.0, 0.02)
            * (growth if k < panel.horizon else 1.0)
        ]
    ]
    put_reported(con, panel, pd.DataFrame(rows).assign(amount_adjusted=lambda table: table["amount"]))


@pytest.mark.parametrize("panel", [make_panel(horizon=8), daily()], ids=["weekly", "daily"])
@pytest.mark.parametrize(("growth", "drifted"), [(1.0, False), (1.02, False), (1.4, True), (2.0, True)])
def test_growth_of_the_target_is_drift_and_season_is_none(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, growth: float, drifted: bool
) -> None:
    start = index_of(panel, date(2030, 6, 3))
    put_history(con, panel, start, growth)

    table = pd.DataFrame(target_drift(con, panel, start)).set_index(["level", "member"])

    total = table.loc[("total", "")]
    assert bool(total["is_drifted"]) == drifted
    assert (total["mean"] + total["reference_mean"]) / 2 == pytest.approx(1.0)
    assert total["mean"] / total["reference_mean"] == pytest.approx(growth, rel=0.05)
    assert total["rows"] == total["reference_rows"] == 40 * panel.horizon
    assert len(table) == 41


def test_the_target_of_series_without_a_year_before_is_left_out(con: duckdb.DuckDBPyConnection) -> None:
    put_reported(con, PANEL, pd.DataFrame([{"shop": 1, "t": START, "amount": 5.0, "amount_adjusted": 5.0}]))

    assert target_drift(con, PANEL, START) == []


def test_that_some_series_grow_and_others_shrink_is_no_drift_of_the_target(
    con: duckdb.DuckDBPyConnection,
) -> None:
    rng = np.random.default_rng(8)
    rows = [
        {"shop": shop, "t": START - ago - k, "amount": 0.0, "amount_adjusted": level * rng.gamma(100.0, 0.01)}
        for shop, growth in enumerate(rng.lognormal(0.0, 0.3, 400))
        for ago, level in ((0, growth), (52, 1.0))
        for k in range(3)
    ]
    put_reported(con, PANEL, pd.DataFrame(rows))

    total = target_drift(con, PANEL, START)[0]

    assert total["psi"] < 0.1
    assert not total["is_drifted"]


def test_a_defect_that_was_mended_is_no_drift_of_the_target(con: duckdb.DuckDBPyConnection) -> None:
    rng = np.random.default_rng(9)
    rows = [
        {"shop": shop, "t": START - ago - k, "amount": factor * value, "amount_adjusted": value}
        for shop in range(60)
        for ago, factor in ((0, 1.0), (52, 2.0))
        for k in range(3)
        for value in [rng.gamma(50.0, 0.02)]
    ]
    put_reported(con, PANEL, pd.DataFrame(rows))
    mended = target_drift(con, PANEL, START)[0]
    con.execute("UPDATE cleaned.sales SET amount_adjusted = amount")
    as_it_came = target_drift(con, PANEL, START)[0]

    assert (mended["is_drifted"], as_it_came["is_drifted"]) == (False, True)


# Stability ---------------------------------------------------------------------------------------


def test_stability_is_how_much_the_same_periods_moved(con: duckdb.DuckDBPyConnection) -> None:
    tables.prepare(con, PANEL)
    put_reported(con, PANEL, pd.DataFrame([{"shop": shop, "t": START, "amount": 1.0} for shop in (1, 2)]))
    before, after = forecasts(START), forecasts(START + 1)
    before["forecast"] = [10.0, 20.0, 30.0, 100.0, 200.0, 300.0]
    after["forecast"] = [24.0, 27.0, 1.0, 150.0, 330.0, 2.0]
    keep_forecasts(con, PANEL, {"champion": before, "baseline": before})
    keep_forecasts(con, PANEL, {"champion": after, "baseline": before.assign(cutoff=after["cutoff"])})

    labels = [label_of(PANEL, START + k) for k in range(4)]
    keep_stability(con, PANEL, labels[:2])

    kept = con.execute(
        f"SELECT * EXCLUDE level FROM {tables.STABILITY} WHERE level = 'total' ORDER BY week"
    ).fetchall()
    # Shop 1: 20 to 24, 30 to 27; shop 2: 200 to 150, 300 to 330.
    assert kept == [
        (
            labels[1],
            labels[0],
            labels[2],
            "",
            174.0,
            220.0,
            pytest.approx(54 / 220),
            pytest.approx(-46 / 220),
        ),
        (labels[1], labels[0], labels[3], "", 357.0, 330.0, pytest.approx(33 / 330), pytest.approx(27 / 330)),
    ]
    of_shops = con.execute(f"SELECT DISTINCT member FROM {tables.STABILITY} WHERE level = 'shop'").fetchall()
    assert sorted(of_shops) == [("1",), ("2",)]
    measured = stability_measures(read_pairs(con, PANEL, labels[1])).set_index(["level", "member"])["value"]
    assert measured["total", ""] == pytest.approx(87 / 550)
    assert measured["shop", "1"] == pytest.approx(7 / 50)


def test_series_that_only_one_cutoff_forecasts_have_not_moved(con: duckdb.DuckDBPyConnection) -> None:
    put_reported(con, PANEL, pd.DataFrame([{"shop": shop, "t": START, "amount": 1.0} for shop in (1, 2, 3)]))
    keep_forecasts(con, PANEL, {"champion": forecasts(START, shops=(1, 2))})
    keep_forecasts(con, PANEL, {"champion": forecasts(START + 2, shops=(2, 3))})

    first, second = (read_pairs(con, PANEL, label_of(PANEL, START + k)) for k in (0, 2))

    assert first.empty
    assert moved(first).empty
    assert set(second[second["level"] == "shop"]["member"]) == {"2"}
    assert len(second[second["level"] == "total"]) == 1
