"""Intervals of series and of sums: coverage of later errors, what does not count, order, storage."""

import json

import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.aggregates import aggregate
from turnover_assets.core.conformal import Spread
from turnover_assets.core.intervals import BOUNDS, Intervals, comparable
from turnover_assets.core.metrics import coverage
from turnover_assets.core.models import Rows

LEVELS = ["group"]
HORIZONS = (1, 2, 4, 8)


def make_errors(seed: int, cutoffs: int = 12, series: int = 60, shared: float = 0.05) -> pd.DataFrame:
    """Errors as of a backtest: skewed, growing with the horizon, partly shared by the series of a cutoff."""
    dice = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product([range(series), range(cutoffs), HORIZONS])
    table = grid.to_frame(index=False, name=["series_id", "cutoff", "horizon"])
    table["t"] = table["cutoff"] + table["horizon"]
    table["group"] = table["series_id"] % 3
    scale = np.random.default_rng(1).lognormal(5.0, 1.5, series)
    table["scale"] = scale[table["series_id"]]
    table["deviation"] = np.random.default_rng(2).uniform(0.05, 1.0, series)[table["series_id"]]
    table["age"] = 100
    table["forecast"] = table["scale"] * dice.uniform(0.5, 1.5, len(table))
    own = table["deviation"] * table["horizon"] ** 0.5 * (dice.gamma(2.0, 1.0, len(table)) - 2.0)
    common = dice.normal(0.0, shared, cutoffs)[table["cutoff"]]
    table["actual"] = table["forecast"] + table["scale"] * (0.2 * own + common)
    return table


def make_rows(table: pd.DataFrame, in_force: float = 1.0) -> tuple[Rows, np.ndarray]:
    """Rows and forecasts in the scale of adjusted values."""
    identity = table[["series_id", "cutoff", "horizon", "t", "scale", "actual"]].copy()
    identity["scale"] /= in_force
    identity["in_force"] = in_force
    x = table[["deviation", "age"]].to_numpy(np.float32)
    return Rows(identity, x, ("deviation", "age")), table["forecast"].to_numpy() / in_force


def bounds_for(horizons: list[int], intervals: Intervals) -> pd.DataFrame:
    """Bounds of forecasts of 100 in series of scale 100."""
    one = {"series_id": 1, "cutoff": 1, "t": 2, "scale": 100.0, "in_force": 1.0, "actual": np.nan}
    rows = Rows(
        pd.DataFrame({"horizon": horizons}).assign(**one), np.empty((len(horizons), 0), np.float32), ()
    )
    return intervals.bounds(rows, np.full(len(horizons), 100.0), nonnegative=True)


def covered(table: pd.DataFrame, bounds: pd.DataFrame, level: int) -> float:
    lower, upper = (bounds[f"{side}_{level}"].to_numpy() for side in ("lower", "upper"))
    return coverage(table["actual"].to_numpy(), lower, upper)


@pytest.fixture(scope="module")
def intervals() -> Intervals:
    return Intervals.calibrate(make_errors(3, cutoffs=40, shared=0.0), LEVELS)


@pytest.mark.parametrize("level", [80, 95])
@pytest.mark.parametrize("horizon", [None, 1, 8])
def test_coverage_of_later_errors_is_near_the_nominal_one(
    intervals: Intervals, level: int, horizon: int | None
) -> None:
    later = make_errors(4, cutoffs=40, shared=0.0)
    later = later[later["horizon"] == horizon].reset_index(drop=True) if horizon else later

    bounds = intervals.bounds(*make_rows(later), nonnegative=False)

    assert covered(later, bounds, level) == pytest.approx(level / 100, abs=0.04)


@pytest.mark.parametrize("level", [80, 95])
@pytest.mark.parametrize("side", ["calm", "restless"])
def test_calm_series_are_covered_as_restless_ones_are(intervals: Intervals, level: int, side: str) -> None:
    later = make_errors(5, cutoffs=40, shared=0.0)
    calm = later["deviation"] < later["deviation"].median()
    own = later[calm if side == "calm" else ~calm].reset_index(drop=True)

    bounds = intervals.bounds(*make_rows(own), nonnegative=False)

    assert covered(own, bounds, level) == pytest.approx(level / 100, abs=0.08)


@pytest.mark.parametrize("level", [80, 95])
@pytest.mark.parametrize("shared", [0.0, 0.5], ids=["independent parts", "dependent parts"])
def test_sums_are_covered_whether_or_not_their_parts_err_together(level: int, shared: float) -> None:
    found = Intervals.calibrate(make_errors(6, cutoffs=60, shared=shared), LEVELS)
    later = aggregate(make_errors(7, cutoffs=200, shared=shared), LEVELS)

    bounded = found.aggregate_bounds(later, nonnegative=False)

    for name, own in bounded.groupby("level"):
        assert covered(own, own, level) == pytest.approx(level / 100, abs=0.08), name


def test_dependent_parts_make_the_sum_less_certain() -> None:
    widths = {}
    for shared in (0.0, 0.5):
        errors = make_errors(8, shared=shared)
        sums = Intervals.calibrate(errors, LEVELS).aggregate_bounds(
            aggregate(errors, LEVELS), nonnegative=False
        )
        total = sums[sums["level"] == "total"]
        widths[shared] = ((total["upper_80"] - total["lower_80"]) / total["scale"]).mean()

    assert widths[0.5] > 2 * widths[0.0]


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0], ids=["unbiased", "far too low", "far too high"])
def test_the_wider_interval_holds_the_narrower_one_and_both_the_forecast(shift: float) -> None:
    errors = make_errors(9)
    found = Intervals.calibrate(errors.assign(forecast=errors["forecast"] - shift * errors["scale"]), LEVELS)

    series = found.bounds(*make_rows(errors), nonnegative=False).assign(forecast=errors["forecast"])
    sums = found.aggregate_bounds(aggregate(errors, LEVELS), nonnegative=False)

    for table in (series, sums):
        ordered = table[["lower_95", "lower_80", "forecast", "upper_80", "upper_95"]].to_numpy()
        assert (np.diff(ordered, axis=1) >= 0).all()


def test_bounds_are_never_below_zero_where_the_target_cannot_be(intervals: Intervals) -> None:
    rows, forecast = make_rows(make_errors(10))

    free = intervals.bounds(rows, forecast, nonnegative=False)
    clipped = intervals.bounds(rows, forecast, nonnegative=True)

    assert (free["lower_95"] < 0).any()
    pd.testing.assert_frame_equal(clipped, free.clip(lower=0.0))


def test_bounds_are_given_in_the_scale_of_adjusted_values(intervals: Intervals) -> None:
    errors = make_errors(11)

    plain = intervals.bounds(*make_rows(errors), nonnegative=True)
    doubled = intervals.bounds(*make_rows(errors, in_force=2.0), nonnegative=True)

    pd.testing.assert_frame_equal(doubled * 2.0, plain)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_another_currency_changes_the_units_and_nothing_else(factor: float) -> None:
    errors = make_errors(12)
    amounts = ["scale", "forecast", "actual"]
    converted = errors.assign(**{name: errors[name] * factor for name in amounts})

    before = Intervals.calibrate(errors, LEVELS).bounds(*make_rows(errors), nonnegative=True)
    after = Intervals.calibrate(converted, LEVELS).bounds(*make_rows(converted), nonnegative=True)

    pd.testing.assert_frame_equal(after, before * factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("unknown", "stand_in"),
    [pytest.param(20, 8, id="beyond"), pytest.param(9, 8, id="just beyond")],
)
def test_a_horizon_beyond_all_seen_has_the_bounds_of_the_longest(
    intervals: Intervals, unknown: int, stand_in: int
) -> None:
    # Other horizons stand around it, and must not matter.
    bounds = bounds_for([8, unknown, 4, stand_in], intervals)

    assert bounds.loc[1].tolist() == bounds.loc[3].tolist()


def test_a_horizon_never_seen_is_as_uncertain_as_its_neighbours_let_expect(intervals: Intervals) -> None:
    shorter, between, longer = bounds_for([2, 3, 4], intervals)["upper_80"]

    assert shorter <= between <= longer


def test_the_order_of_rows_does_not_matter(intervals: Intervals) -> None:
    horizons = [8, 3, 1, 5, 2, 20, 4]

    forwards = bounds_for(horizons, intervals)
    backwards = bounds_for(horizons[::-1], intervals)

    pd.testing.assert_frame_equal(forwards, backwards[::-1].reset_index(drop=True))


def test_rows_without_an_actual_do_not_count() -> None:
    errors = make_errors(13)
    unknown = errors.assign(cutoff=errors["cutoff"] - 1, t=errors["t"] + 1000, actual=np.nan)

    found = Intervals.calibrate(pd.concat([errors, unknown], ignore_index=True), LEVELS)

    assert found.to_dict() == Intervals.calibrate(errors, LEVELS).to_dict()


def test_without_a_known_actual_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match=r"at least one row with a known actual"):
        Intervals.calibrate(make_errors(14).assign(actual=np.nan), LEVELS)


def test_errors_across_a_change_of_scale_do_not_count() -> None:
    errors = make_errors(15)
    changed = errors.assign(cutoff=errors["cutoff"] - 1, actual=errors["actual"] * 2.0)
    both = pd.concat([errors.assign(comparable=True), changed.assign(comparable=False)], ignore_index=True)

    found = Intervals.calibrate(both, LEVELS)

    assert found.to_dict() == Intervals.calibrate(errors, LEVELS).to_dict()


def test_errors_across_a_change_of_scale_count_where_there_are_no_others() -> None:
    errors = make_errors(16)

    found = Intervals.calibrate(errors.assign(comparable=False), LEVELS)

    assert found.to_dict() == Intervals.calibrate(errors, LEVELS).to_dict()


def test_outcomes_are_comparable_where_the_scale_is_the_one_the_forecast_went_by() -> None:
    in_force = [1.0, 2.0, 1.0, 2.1]
    errors = pd.DataFrame(
        {"shop": 1, "t": [1, 2, 3, 4], "in_force": in_force, "actual": 5.0}, index=[9, 8, 7, 6]
    )
    factors = pd.DataFrame({"shop": [1, 1, 2, 1], "t": [1, 2, 3, 4], "factor": [2.0, np.nan, 5.0, 2.0]})

    found = comparable(errors, factors, ["shop"])

    # Doubled by now; counts as missing by now; another shop's; the same scale, estimated again.
    assert found.to_dict() == {9: False, 8: False, 7: True, 6: True}


def test_nothing_sold_and_nothing_reported_have_no_other_scale() -> None:
    errors = pd.DataFrame({"shop": 1, "t": [1, 2, 3], "in_force": 2.0, "actual": [0.0, np.nan, 0.0]})
    factors = pd.DataFrame({"shop": 1, "t": [1, 3], "factor": [1.0, np.nan]})

    found = comparable(errors, factors, ["shop"])

    assert found.tolist() == [True, True, False]  # the last one counts as missing


def test_newer_errors_count_more() -> None:
    wide, narrow = make_errors(17), make_errors(18)
    narrow["actual"] = narrow["forecast"] + (narrow["actual"] - narrow["forecast"]) / 10
    older = {"cutoff": -40, "t": -40}
    widths = []
    for old, new in ((wide, narrow), (narrow, wide)):
        moved = old.assign(**{name: old[name] + by for name, by in older.items()})
        found = Intervals.calibrate(pd.concat([moved, new], ignore_index=True), LEVELS)
        widths.append(bounds_for([4], found).eval("upper_80 - lower_80").item())

    assert widths[0] < widths[1]


@pytest.mark.parametrize("missing", ["one window", "one series", "no helpers", "perfect forecasts"])
def test_little_to_learn_from_still_makes_bounds(missing: str) -> None:
    errors = make_errors(19)
    few = {
        "one window": errors[errors["cutoff"] == 0],
        "one series": errors[errors["series_id"] == 0],
        "no helpers": errors.drop(columns=["deviation", "age"]),
        "perfect forecasts": errors.assign(actual=errors["forecast"]),
    }[missing]

    found = Intervals.calibrate(few, LEVELS)

    assert np.isfinite(found.bounds(*make_rows(errors), nonnegative=False)).all(axis=None)
    sums = found.aggregate_bounds(aggregate(errors, LEVELS), nonnegative=False)
    assert np.isfinite(sums[list(BOUNDS)]).all(axis=None)


def test_a_time_of_year_that_is_usually_uncertain_has_wider_bounds() -> None:
    calm, wild = 0.1, 0.4
    errors = make_errors(22, shared=0.0)
    errors["season_error"] = np.where(errors["t"] % 2 == 0, calm, wild)
    found = Intervals.calibrate(errors, LEVELS)

    def widths(season_error: float) -> tuple[float, float]:
        now = errors[errors["cutoff"] == errors["cutoff"].max()].assign(season_error=season_error)
        rows, forecast = make_rows(now)
        rows.identity["season_error"] = season_error
        series = found.bounds(rows, forecast, nonnegative=False)
        sums = found.aggregate_bounds(aggregate(now, LEVELS), nonnegative=False)
        return tuple(float((table["upper_80"] - table["lower_80"]).mean()) for table in (series, sums))

    for of_wild, of_calm in zip(widths(wild), widths(calm), strict=True):
        assert of_wild / of_calm == pytest.approx((wild / calm) ** 0.5)


def test_stored_as_json_they_are_exactly_the_same(intervals: Intervals) -> None:
    errors = make_errors(20)
    sums = aggregate(errors, LEVELS)

    read = Intervals.from_dict(json.loads(json.dumps(intervals.to_dict())))

    assert read.to_dict() == intervals.to_dict()
    for found in (read, intervals):
        assert found.quantiles.index.name == "horizon"
    rows, forecast = make_rows(errors)
    pd.testing.assert_frame_equal(
        read.bounds(rows, forecast, nonnegative=True),
        intervals.bounds(rows, forecast, nonnegative=True),
        check_exact=True,
    )
    pd.testing.assert_frame_equal(
        read.aggregate_bounds(sums, nonnegative=True),
        intervals.aggregate_bounds(sums, nonnegative=True),
        check_exact=True,
    )


def test_quantiles_of_earlier_releases_are_in_units_of_the_scale() -> None:
    quantiles = {"columns": list(BOUNDS), "index": [1, 2], "data": [[-0.1, 0.2, -0.3, 0.4], [-1, 1, -2, 2]]}

    found = Intervals.from_dict({"quantiles": quantiles})

    assert found.spread == Spread()
    assert bounds_for([1], found).to_numpy()[0] == pytest.approx([90.0, 120.0, 70.0, 140.0])
    sums = found.aggregate_bounds(aggregate(make_errors(21), LEVELS), nonnegative=True)
    assert sums[list(BOUNDS)].isna().all(axis=None)
