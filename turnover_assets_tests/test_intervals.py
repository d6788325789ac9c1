"""Prediction intervals: coverage, order, bounds at zero, horizons never seen, and the order of rows."""

import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.intervals import BOUNDS, Intervals
from turnover_assets.core.metrics import coverage
from turnover_assets.core.models import Rows


def make_rows(count: int, seed: int, horizons: tuple[int, ...] = (1, 2, 4, 8)) -> tuple[Rows, np.ndarray]:
    """Rows and forecasts; the scaled error is skewed and grows with the horizon."""
    dice = np.random.default_rng(seed)
    horizon, scale = dice.choice(horizons, count), dice.lognormal(5.0, 1.5, count)
    forecast = scale * dice.uniform(0.5, 1.5, count)
    actual = forecast + scale * 0.1 * horizon * (dice.gamma(2.0, 1.0, count) - 2.0)
    identity = pd.DataFrame(
        {
            "series_id": np.arange(count),
            "cutoff": 100,
            "horizon": horizon,
            "t": 100 + horizon,
            "scale": scale,
            "actual": actual,
            "reported": actual,
        }
    )
    return Rows(identity, np.empty((count, 0), np.float32), ()), forecast


def bounds_for(horizons: list[int], intervals: Intervals) -> pd.DataFrame:
    """Bounds of forecasts of 100 in series of scale 1."""
    identity = pd.DataFrame({"horizon": horizons, "scale": 1.0, "actual": np.nan})
    rows = Rows(identity, np.empty((len(horizons), 0), np.float32), ())
    return intervals.bounds(rows, np.full(len(horizons), 100.0), nonnegative=True)


@pytest.mark.parametrize("level", [80, 95])
@pytest.mark.parametrize("horizon", [1, 8])
def test_coverage_of_rows_not_seen_is_near_the_nominal_one(level: int, horizon: int) -> None:
    intervals = Intervals.calibrate(*make_rows(8000, seed=1))
    rows, forecast = make_rows(8000, seed=2)

    bounds = intervals.bounds(rows, forecast, nonnegative=False)

    own = (rows.identity["horizon"] == horizon).to_numpy()
    found = coverage(
        rows.actual[own], bounds[f"lower_{level}"].to_numpy()[own], bounds[f"upper_{level}"].to_numpy()[own]
    )
    assert found == pytest.approx(level / 100, abs=0.03)


def test_quantiles_are_those_of_the_scaled_residuals_of_each_horizon() -> None:
    rows, forecast = make_rows(500, seed=3)

    intervals = Intervals.calibrate(rows, forecast)

    own = (rows.identity["horizon"] == 4).to_numpy()
    residual = ((rows.actual - forecast) / rows.scale)[own]
    expected = np.quantile(residual, [0.1, 0.9, 0.025, 0.975])
    assert intervals.quantiles.loc[4, list(BOUNDS)].to_numpy() == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0], ids=["unbiased", "far too low", "far too high"])
def test_the_wider_interval_holds_the_narrower_one_and_both_the_forecast(shift: float) -> None:
    rows, forecast = make_rows(2000, seed=4)
    intervals = Intervals.calibrate(rows, forecast - shift * rows.scale)

    bounds = intervals.bounds(rows, forecast, nonnegative=False)

    columns = [bounds["lower_95"], bounds["lower_80"], pd.Series(forecast), bounds["upper_80"]]
    pairs = zip(columns, [*columns[1:], bounds["upper_95"]], strict=True)
    assert all((low <= high).all() for low, high in pairs)


def test_bounds_are_never_below_zero_where_the_target_cannot_be() -> None:
    rows, forecast = make_rows(2000, seed=5)
    intervals = Intervals.calibrate(rows, forecast)

    free = intervals.bounds(rows, forecast, nonnegative=False)
    clipped = intervals.bounds(rows, forecast, nonnegative=True)

    assert (free["lower_95"] < 0).any()
    pd.testing.assert_frame_equal(clipped, free.clip(lower=0.0))


@pytest.mark.parametrize(
    ("unknown", "stand_in"),
    [pytest.param(3, 2, id="between"), pytest.param(20, 8, id="beyond"), pytest.param(0, 1, id="before")],
)
def test_a_horizon_never_seen_has_the_bounds_of_the_nearest_shorter_one(unknown: int, stand_in: int) -> None:
    intervals = Intervals.calibrate(*make_rows(2000, seed=6))

    # Other horizons stand around it, and must not matter.
    bounds = bounds_for([8, unknown, 4, stand_in], intervals)

    assert bounds.loc[1].tolist() == bounds.loc[3].tolist()


def test_the_order_of_rows_does_not_matter() -> None:
    intervals = Intervals.calibrate(*make_rows(2000, seed=7))
    horizons = [8, 3, 1, 5, 2, 20, 4]

    forwards = bounds_for(horizons, intervals)
    backwards = bounds_for(horizons[::-1], intervals)

    pd.testing.assert_frame_equal(forwards, backwards[::-1].reset_index(drop=True))


def test_rows_without_an_actual_do_not_count() -> None:
    rows, forecast = make_rows(400, seed=8)
    unknown = rows.identity.assign(actual=rows.identity["actual"].where(rows.identity.index % 2 == 0))
    half = rows.where(np.arange(len(rows)) % 2 == 0)

    found = Intervals.calibrate(Rows(unknown, rows.x, ()), forecast)

    pd.testing.assert_frame_equal(found.quantiles, Intervals.calibrate(half, forecast[::2]).quantiles)


def test_without_a_known_actual_there_is_nothing_to_learn_from() -> None:
    rows, forecast = make_rows(10, seed=9)
    unknown = Rows(rows.identity.assign(actual=np.nan), rows.x, ())

    with pytest.raises(ValueError, match=r"at least one row with a known actual"):
        Intervals.calibrate(unknown, forecast)
