"""The seasonal regression and what all fits share: weights of rows, thinning."""

import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.models.base import Rows, thinned, training_weights
from turnover_assets.core.models.regression import SeasonalRegression, least_absolute, simple_forecasts

NAMES = ("mean_4", "mean_52", "year_ago_same", "growth_13")


def make_rows(count: int = 400, seed: int = 0) -> Rows:
    dice = np.random.default_rng(seed)
    x = dice.lognormal(0.0, 0.5, (count, len(NAMES))).astype(np.float32)
    scale = dice.lognormal(3.0, 1.0, count)
    actual = scale * (0.7 * x[:, 2] + 0.3 * x[:, 0])
    identity = pd.DataFrame(
        {"cutoff": dice.integers(0, 105, count), "horizon": 1, "scale": scale, "actual": actual}
    )
    return Rows(identity, x, NAMES)


def test_the_fit_finds_weights_that_an_outlier_does_not_move() -> None:
    dice = np.random.default_rng(1)
    x = dice.normal(size=(500, 3))
    y = x @ np.array([0.2, 0.5, 0.3])
    y[:40] += 50.0

    found = least_absolute(x, y, np.ones(500), ridge=0.0)

    assert found == pytest.approx([0.2, 0.5, 0.3], abs=2e-3)


def test_a_strong_penalty_gives_equal_weights() -> None:
    dice = np.random.default_rng(2)
    x = dice.normal(size=(200, 4))

    found = least_absolute(x, x[:, 0], np.ones(200), ridge=1e9)

    assert found == pytest.approx([0.25] * 4, abs=1e-6)


def test_the_regression_uses_only_features_that_forecast() -> None:
    rows = make_rows()

    model = SeasonalRegression({"ridge": 1e-6}).fit(rows, seed=0, threads=1)

    assert simple_forecasts(rows)[0] == ("mean_4", "mean_52", "year_ago_same")
    assert model.importance(NAMES)["growth_13"] == 0.0
    assert model.predict(rows) == pytest.approx(rows.actual, rel=0.02)


def test_what_is_missing_is_the_mean_of_what_a_row_has() -> None:
    x = np.array([[1.0, np.nan, 3.0, 9.0], [np.nan, np.nan, np.nan, 9.0]], dtype=np.float32)

    _, found = simple_forecasts(Rows(pd.DataFrame(index=range(2)), x, NAMES))

    assert found.tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]


def test_a_row_of_two_seasons_ago_counts_a_known_share_of_a_new_one() -> None:
    identity = pd.DataFrame({"cutoff": [0, 104], "horizon": [1, 1], "scale": [10.0, 10.0]})
    rows = Rows(identity, np.ones((2, 4), dtype=np.float32), NAMES)

    old, new = training_weights(rows, memory=2.0)

    assert old / new == pytest.approx(np.exp(-1.0))
    assert old + new == pytest.approx(2.0)


def test_weights_without_forgetting_follow_the_scale() -> None:
    rows = make_rows()

    assert training_weights(rows, memory=0.0) == pytest.approx(rows.scale / rows.scale.mean())


def test_thinning_keeps_about_as_many_rows_as_wanted_and_the_same_each_time() -> None:
    rows = make_rows(5000)

    found = thinned(rows, 1000)

    assert len(found) == pytest.approx(1000, rel=0.1)
    assert np.array_equal(found.x, thinned(rows, 1000).x)
    assert thinned(rows, 5000) is rows


def test_every_horizon_counts_alike_however_many_rows_it_has() -> None:
    rows = make_rows(4000)
    rows.identity["horizon"] = np.where(np.arange(len(rows)) < 3000, 1, 2)
    rows.identity["scale"] = 1.0

    few = thinned(rows, 1000).identity["horizon"].value_counts()
    weights = pd.Series(training_weights(rows, memory=0.0)).groupby(rows.identity["horizon"]).sum()

    assert few.to_numpy() == pytest.approx([500, 500], rel=0.15)
    assert weights.to_numpy() == pytest.approx([2000.0, 2000.0])
    assert thinned(rows, 3600).identity["horizon"].value_counts()[2] == 1000  # all that there are
