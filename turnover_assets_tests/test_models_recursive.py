"""Recursive boosting against a forecast made one period after the other, by hand."""

import numpy as np
import pandas as pd
import pytest
import xgboost

from turnover_assets.core.models import Rows
from turnover_assets.core.models.recursive import (
    RecursiveBoosting,
    SeasonalRecursiveBoosting,
    used_features,
)

NAMES = ("lag_0", "lag_1", "mean_2", "mean_5", "horizon_ahead", "year_ago_same", "recent_shaped", "shop_code")
HORIZON = 4


def make_rows(series: int, seed: int = 3) -> Rows:
    """Rows of one cutoff for each series; the next value is the mean of the two before and last year's."""
    rng = np.random.default_rng(seed)
    newest = rng.uniform(0.5, 1.5, (series, 5))
    records, x = [], []
    for number in range(series):
        history = list(newest[number])
        for horizon in range(1, HORIZON + 1):
            ago = rng.uniform(0.5, 1.5)
            value = 0.25 * history[-1] + 0.25 * history[-2] + 0.5 * ago
            history.append(value)
            known = newest[number]
            x.append([known[4], known[3], known[3:].mean(), known.mean(), horizon, ago, ago, number % 7])
            records.append((number, 100, horizon, 100 + horizon, 10.0, 1.0, 10.0 * value, 10.0 * value))
    columns = ["series_id", "cutoff", "horizon", "t", "scale", "in_force", "actual", "reported"]
    return Rows(pd.DataFrame(records, columns=columns), np.array(x, dtype=np.float32), NAMES)


@pytest.fixture(scope="module")
def model() -> RecursiveBoosting:
    return RecursiveBoosting({"rounds": 40, "learning_rate": 0.2}).fit(make_rows(800), seed=1, threads=1)


def by_hand(model: RecursiveBoosting, rows: Rows) -> list[float]:
    """One series after the other, one period after the other."""
    names, found = used_features(rows.names), []
    for series in rows.identity["series_id"].unique():
        own = rows.where((rows.identity["series_id"] == series).to_numpy())
        values, ahead = [float(own.column("lag_1")[0]), float(own.column("lag_0")[0])], []
        for i in range(len(own)):
            row = dict(zip(rows.names, map(float, own.x[i]), strict=True))
            row["lag_0"], row["lag_1"] = values[-1], values[-2]
            row["mean_2"] = np.mean(values[-2:])
            if ahead:
                row["mean_5"] = row["mean_5"] * (1 - len(ahead) / 5) + np.mean(ahead) * len(ahead) / 5
            x = np.array([[row[name] for name in names]], dtype=np.float32)
            logged = float(model._fitted.predict(xgboost.DMatrix(x, feature_names=names))[0])
            predicted = 0.3 * np.exp(logged) - 0.3  # from what a value of zero is to the trees
            values.append(predicted)
            ahead.append(predicted)
            found.append(predicted * 10.0)
    return found


def test_later_periods_are_forecast_from_earlier_forecasts(model: RecursiveBoosting) -> None:
    rows = make_rows(12, seed=8)

    assert model.predict(rows) == pytest.approx(by_hand(model, rows), rel=1e-5)


def test_it_follows_what_it_has_learned_over_the_whole_horizon(model: RecursiveBoosting) -> None:
    rows = make_rows(200, seed=9)

    error = np.abs(model.predict(rows) - rows.actual)

    assert error.mean() < 0.5 * np.abs(rows.actual - rows.actual.mean()).mean()


def test_the_order_of_rows_does_not_matter(model: RecursiveBoosting) -> None:
    rows = make_rows(10, seed=4)
    order = np.random.default_rng(0).permutation(len(rows))
    mixed = Rows(rows.identity.iloc[order].reset_index(drop=True), rows.x[order], rows.names)

    assert np.array_equal(model.predict(mixed), model.predict(rows)[order])


def test_a_missing_horizon_leaves_a_gap_and_no_more(model: RecursiveBoosting) -> None:
    rows = make_rows(6, seed=5)
    without = rows.where((rows.identity["horizon"] != 2).to_numpy())

    found, whole = model.predict(without), model.predict(rows)

    first = (without.identity["horizon"] == 1).to_numpy()
    assert np.array_equal(found[first], whole[(rows.identity["horizon"] == 1).to_numpy()])
    assert np.isfinite(found).all()


def test_a_forecast_of_a_closed_day_is_no_newest_value(model: RecursiveBoosting) -> None:
    rows = make_rows(6, seed=5)
    second = rows.identity["horizon"] == 2
    shut = Rows(rows.identity.assign(closed=second & (rows.identity["series_id"] < 3)), rows.x, rows.names)

    found, whole = model.predict(shut), model.predict(rows)

    without = rows.where((~second).to_numpy())
    expected = np.full(len(rows), np.nan)
    expected[~second.to_numpy()] = model.predict(without)
    series, later = rows.identity["series_id"], rows.identity["horizon"] > 2
    assert np.array_equal(found[(series >= 3) | ~later], whole[(series >= 3) | ~later])
    assert np.array_equal(found[(series < 3) & later], expected[(series < 3) & later])
    assert not np.array_equal(found, whole)


def test_what_tells_of_the_newest_values_in_another_way_is_left_out() -> None:
    assert used_features(NAMES) == ["lag_0", "lag_1", "mean_2", "mean_5", "year_ago_same", "shop_code"]


# What differs from what was usual

SEASON, PEAK = 52, 3.0
SEASONAL_NAMES = ("lag_0", "lag_1", "mean_52", "around_years", "year_ago_same", "log_scale")


def seasonal_rows(cutoffs: range, horizons: range, series: int = 150) -> Rows:
    """Series that sell three times as much in one week of 52, told a season later by `around_years`."""
    rng = np.random.default_rng(5)
    level = rng.uniform(0.8, 1.2, series)

    def value(number: int, t: int) -> float:
        return float(level[number] * (PEAK if t % SEASON == 50 else 1.0))

    records, x = [], []
    for number in range(series):
        for cutoff in cutoffs:
            for horizon in horizons:
                t, mean = cutoff + horizon, float(level[number])
                ago = value(number, t - SEASON) if t >= SEASON else np.nan
                lags = [value(number, cutoff), value(number, cutoff - 1)]
                x.append([*lags, mean, ago, ago, 2.3])
                records.append((number, cutoff, horizon, t, 10.0, 1.0, 10 * value(number, t), np.nan))
    columns = ["series_id", "cutoff", "horizon", "t", "scale", "in_force", "actual", "reported"]
    return Rows(pd.DataFrame(records, columns=columns), np.array(x, dtype=np.float32), SEASONAL_NAMES)


def test_a_peak_that_was_seen_once_comes_back_in_the_seasonal_one_only() -> None:
    # Up to week 95 the peak was an outcome once, in week 50, when nothing told of it a season before.
    training, scoring = seasonal_rows(range(2, 94), range(1, 2)), seasonal_rows(range(96, 97), range(1, 9))
    at_peak = (scoring.identity["t"] % SEASON == 50).to_numpy()
    errors = {}

    for kind in (RecursiveBoosting, SeasonalRecursiveBoosting):
        predicted = kind().fit(training, seed=1, threads=1).predict(scoring)
        errors[kind] = np.abs(predicted / scoring.actual - 1)[at_peak].mean()

    assert at_peak.sum() == 150
    assert errors[SeasonalRecursiveBoosting] < 0.15
    assert errors[RecursiveBoosting] > 2 * errors[SeasonalRecursiveBoosting]


def test_the_seasonal_one_multiplies_what_was_usual_by_what_its_trees_say() -> None:
    training, scoring = seasonal_rows(range(53, 70), range(1, 3)), seasonal_rows(range(75, 76), range(1, 4))
    model = SeasonalRecursiveBoosting({"rounds": 20}).fit(training, seed=1, threads=1)
    shifted = scoring.x.copy()
    shifted[:, SEASONAL_NAMES.index("around_years")] = np.nan  # the longest mean stands in

    by_mean = model.predict(Rows(scoring.identity, shifted, SEASONAL_NAMES))

    first = (scoring.identity["horizon"] == 1).to_numpy()
    names = model._used(SEASONAL_NAMES)
    columns = [SEASONAL_NAMES.index(name) for name in names]
    for x, usual, predicted in (
        (scoring.x, "around_years", model.predict(scoring)),
        (shifted, "mean_52", by_mean),
    ):
        trees = model._fitted.predict(xgboost.DMatrix(x[first][:, columns], feature_names=names))
        product = np.exp(trees.astype(np.float64)) * (x[first, SEASONAL_NAMES.index(usual)] + 0.3) - 0.3
        np.testing.assert_allclose(predicted[first], product * 10.0, rtol=1e-6)


def test_a_series_without_any_history_is_forecast_from_nothing_usual() -> None:
    rows = seasonal_rows(range(60, 61), range(1, 2), series=3)
    model = SeasonalRecursiveBoosting({"rounds": 5}).fit(rows, seed=1, threads=1)
    empty = Rows(rows.identity, np.full_like(rows.x, np.nan), rows.names)

    assert np.isfinite(model.predict(empty)).all()
