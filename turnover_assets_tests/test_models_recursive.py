"""Recursive boosting against a forecast made one period after the other, by hand."""

import numpy as np
import pandas as pd
import pytest
import xgboost

from turnover_assets.core.models import Rows
from turnover_assets.core.models.recursive import RecursiveBoosting, used_features

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
            predicted = float(model._fitted.predict(xgboost.DMatrix(x, feature_names=names))[0])
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


def test_what_tells_of_the_newest_values_in_another_way_is_left_out() -> None:
    assert used_features(NAMES) == ["lag_0", "lag_1", "mean_2", "mean_5", "year_ago_same", "shop_code"]
