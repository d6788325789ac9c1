"""Accuracy metrics against the same definitions in plain Python, and in utilsforecast."""

import math
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
import pytest
import utilsforecast.losses as losses
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.core.metrics import (
    MINIMUM_SEASONAL_PAIRS,
    NAIVE_ERRORS_SQL,
    bias,
    coverage,
    mase,
    pinball,
    rmsse,
    wape,
    width,
)

amounts = st.floats(-1e6, 1e6).map(lambda value: round(value, 2))
pairs = st.lists(st.tuples(st.one_of(amounts, st.just(math.nan)), amounts), max_size=40)


def wape_oracle(rows: list[tuple[float, float]]) -> float:
    known = [(a, f) for a, f in rows if not math.isnan(a)]
    total = math.fsum(abs(a) for a, _ in known)
    return math.fsum(abs(a - f) for a, f in known) / total if total > 0 else math.nan


def bias_oracle(rows: list[tuple[float, float]]) -> float:
    known = [(a, f) for a, f in rows if not math.isnan(a)]
    total = math.fsum(abs(a) for a, _ in known)
    return math.fsum(f - a for a, f in known) / total if total > 0 else math.nan


def columns(rows: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a for a, _ in rows], dtype=float), np.array([f for _, f in rows], dtype=float)


@given(pairs)
def test_wape_is_what_its_definition_says(rows: list[tuple[float, float]]) -> None:
    assert wape(*columns(rows)) == pytest.approx(wape_oracle(rows), rel=1e-9, nan_ok=True)


@given(pairs)
def test_bias_is_what_its_definition_says(rows: list[tuple[float, float]]) -> None:
    expected = bias_oracle(rows)

    assert bias(*columns(rows)) == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)


@given(pairs, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[float, float]], dice: object) -> None:
    shuffled = rows.copy()
    dice.shuffle(shuffled)

    assert wape(*columns(shuffled)) == pytest.approx(wape(*columns(rows)), rel=1e-9, nan_ok=True)


@given(pairs, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_currency_does_not_matter(rows: list[tuple[float, float]], rate: float) -> None:
    exchanged = [(a * rate, f * rate) for a, f in rows]

    assert wape(*columns(exchanged)) == pytest.approx(wape(*columns(rows)), rel=1e-9, nan_ok=True)
    assert bias(*columns(exchanged)) == pytest.approx(bias(*columns(rows)), rel=1e-6, abs=1e-9, nan_ok=True)


@given(pairs, amounts)
def test_a_row_without_an_actual_changes_nothing(rows: list[tuple[float, float]], value: float) -> None:
    more = [*rows, (math.nan, value)]

    assert wape(*columns(more)) == pytest.approx(wape(*columns(rows)), rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", [wape, bias], ids=["wape", "bias"])
@pytest.mark.parametrize("actual", [[], [math.nan], [0.0, 0.0]], ids=["no rows", "unknown", "all zero"])
def test_a_share_of_nothing_is_not_a_number(metric: object, actual: list[float]) -> None:
    assert math.isnan(metric(np.array(actual), np.ones(len(actual))))


def test_a_missing_forecast_of_a_known_actual_is_not_hidden() -> None:
    assert math.isnan(wape(np.array([1.0, 2.0]), np.array([1.0, math.nan])))


@pytest.mark.parametrize(
    ("actual", "lower", "upper", "expected"),
    [
        pytest.param([1.0, 2.0, 3.0, 9.0], [0.0] * 4, [5.0] * 4, 0.75, id="three of four inside"),
        pytest.param([1.0, 2.0], [1.0, 0.0], [4.0, 2.0], 1.0, id="bounds are inside"),
        pytest.param([math.nan, 2.0], [0.0, 3.0], [4.0, 4.0], 0.0, id="unknown does not count"),
        pytest.param([math.nan], [0.0], [1.0], math.nan, id="nothing known"),
    ],
)
def test_coverage_counts_known_actuals_within_their_bounds(
    actual: list[float], lower: list[float], upper: list[float], expected: float
) -> None:
    found = coverage(np.array(actual), np.array(lower), np.array(upper))

    assert found == pytest.approx(expected, nan_ok=True)


# The definitions of utilsforecast, per series -----------------------------------------------------

SEASON, TRAINING, HORIZON = 4, 30, 6


@dataclass(frozen=True)
class RandomPanel:
    """History and forecasts of some series, in both layouts."""

    history: pd.DataFrame  # unique_id, ds, y: without gaps
    rows: pd.DataFrame  # unique_id, ds, y, model, lower, upper and the scales as of the cutoff

    def of(self, series: int) -> dict[str, np.ndarray]:
        rows = self.rows[self.rows["unique_id"] == series]
        return {name: rows[name].to_numpy(dtype=float) for name in rows.columns if name != "cutoff"}


def random_panel(con: duckdb.DuckDBPyConnection, seed: int) -> RandomPanel:
    dice = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product([range(5), range(TRAINING + HORIZON)], names=["unique_id", "ds"])
    table = grid.to_frame(index=False).assign(y=dice.normal(50, 30, len(grid)).round(2))
    history, rows = table[table["ds"] < TRAINING], table[table["ds"] >= TRAINING].copy()
    rows["model"] = rows["y"] + dice.normal(0, 10, len(rows))
    rows["model-lo-80"] = rows["model"] - dice.uniform(0, 20, len(rows))
    rows["model-hi-80"] = rows["model"] + dice.uniform(0, 20, len(rows))
    scales = naive_errors(con, history, pd.DataFrame({"series_id": range(5), "cutoff": TRAINING - 1}), SEASON)
    return RandomPanel(history, rows.merge(scales, left_on="unique_id", right_on="series_id"))


def naive_errors(
    con: duckdb.DuckDBPyConnection, history: pd.DataFrame, origins: pd.DataFrame, season: int
) -> pd.DataFrame:
    known = history.rename(columns={"unique_id": "series_id", "ds": "t", "y": "value"})
    con.register("history", known)
    con.register("origins", origins)
    found = con.execute(NAIVE_ERRORS_SQL, {"season": season}).df()
    con.unregister("history")
    con.unregister("origins")
    return found.sort_values(["series_id", "cutoff"]).reset_index(drop=True)


def theirs(table: pd.DataFrame) -> list[float]:
    return list(table.sort_values("unique_id")["model"])


@pytest.mark.parametrize("seed", range(5))
def test_definitions_agree_with_utilsforecast_per_series(
    shared_con: duckdb.DuckDBPyConnection, seed: int
) -> None:
    panel = random_panel(shared_con, seed)
    size = [np.abs(panel.of(s)["y"]).mean() for s in range(5)]
    rows, history = panel.rows, panel.history
    expected = {
        "wape": theirs(losses.nd(rows, ["model"])),
        "bias": np.divide(theirs(losses.bias(rows, ["model"])), size),
        "mase": theirs(losses.mase(rows, ["model"], SEASON, history)),
        "rmsse": theirs(losses.rmsse(rows, ["model"], SEASON, history)),
        "pinball": np.divide(theirs(losses.quantile_loss(rows, {"model": "model-hi-80"}, 0.9)), size),
        "coverage": theirs(losses.coverage(rows, ["model"], 80)),
    }

    for series in range(5):
        of = panel.of(series)
        one = np.zeros(HORIZON, dtype=int)
        found = {
            "wape": wape(of["y"], of["model"]),
            "bias": bias(of["y"], of["model"]),
            "mase": mase(of["y"], of["model"], of["naive_mae"], one),
            "rmsse": rmsse(of["y"], of["model"], of["naive_mse"], one),
            "pinball": pinball(of["y"], of["model-hi-80"], 0.9),
            "coverage": coverage(of["y"], of["model-lo-80"], of["model-hi-80"]),
        }
        assert found == pytest.approx({name: values[series] for name, values in expected.items()})


def test_scaled_errors_of_a_panel_are_the_means_over_its_series(
    shared_con: duckdb.DuckDBPyConnection,
) -> None:
    panel = random_panel(shared_con, 1)
    rows, series = panel.rows, panel.rows["unique_id"].to_numpy()
    actual, forecast = rows["y"].to_numpy(), rows["model"].to_numpy()
    expected_mase = np.mean(theirs(losses.mase(rows, ["model"], SEASON, panel.history)))
    expected_rmsse = np.mean(theirs(losses.rmsse(rows, ["model"], SEASON, panel.history)))

    assert mase(actual, forecast, rows["naive_mae"].to_numpy(), series) == pytest.approx(expected_mase)
    assert rmsse(actual, forecast, rows["naive_mse"].to_numpy(), series) == pytest.approx(expected_rmsse)


def test_series_without_a_scale_do_not_count_in_scaled_errors() -> None:
    actual, forecast, series = np.array([1.0, 1.0, 9.0]), np.array([2.0, 3.0, 0.0]), np.array([0, 0, 1])
    scale = np.array([2.0, 2.0, math.nan])

    assert mase(actual, forecast, scale, series) == pytest.approx(0.75)
    assert rmsse(actual, forecast, scale, series) == pytest.approx(math.sqrt(2.5 / 2))
    assert math.isnan(mase(actual, forecast, np.full(3, math.nan), series))


def test_width_is_relative_to_the_actuals_and_ignores_rows_without_bounds() -> None:
    found = width(np.array([10.0, 30.0, 5.0]), np.array([5.0, 15.0, math.nan]), np.array([15.0, 45.0, 9.0]))

    assert found == pytest.approx(1.0)


def test_rows_without_bounds_do_not_count_in_coverage_and_pinball() -> None:
    actual, lower, upper = np.array([1.0, 5.0]), np.array([0.0, math.nan]), np.array([2.0, math.nan])

    assert coverage(actual, lower, upper) == 1.0
    assert pinball(actual, upper, 0.9) == pytest.approx(0.1)


# The scale of scaled errors -----------------------------------------------------------------------


def naive_oracle(values: dict[int, float], cutoff: int, season: int) -> tuple[float, float]:
    """Mean absolute and squared differences, pair by pair."""

    def differences(lag: int) -> list[float]:
        return [v - values[t - lag] for t, v in values.items() if t <= cutoff and t - lag in values]

    seasonal = differences(season)
    chosen = seasonal if len(seasonal) >= MINIMUM_SEASONAL_PAIRS else differences(1)
    if not chosen or not any(chosen):
        return math.nan, math.nan
    return math.fsum(map(abs, chosen)) / len(chosen), math.fsum(d * d for d in chosen) / len(chosen)


@given(
    st.dictionaries(st.integers(0, 40), st.integers(-99, 99).map(float), min_size=1),
    st.lists(st.integers(0, 50), min_size=1, max_size=4, unique=True),
)
@settings(max_examples=60)
def test_naive_errors_use_pairs_a_season_apart_up_to_the_cutoff(
    shared_con: duckdb.DuckDBPyConnection, values: dict[int, float], cutoffs: list[int]
) -> None:
    history = pd.DataFrame({"series_id": 7, "t": list(values), "value": list(values.values())})
    origins = pd.DataFrame({"series_id": 7, "cutoff": sorted(cutoffs)})

    found = naive_errors(shared_con, history, origins, SEASON)

    expected = [naive_oracle(values, cutoff, SEASON) for cutoff in sorted(cutoffs)]
    assert list(found["naive_mae"]) == pytest.approx([mae for mae, _ in expected], nan_ok=True)
    assert list(found["naive_mse"]) == pytest.approx([mse for _, mse in expected], nan_ok=True)
