"""The Diebold-Mariano test against its formulas written out, and by simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from turnover_assets.core.significance import diebold_mariano, long_run_variance, period_losses

finite = st.floats(-100, 100).map(lambda value: round(value, 3))
series = st.dictionaries(st.integers(0, 30), finite, min_size=1, max_size=25)


def losses(values: dict[int, float]) -> pd.Series:
    return pd.Series(values, dtype=float)


def variance_oracle(values: dict[int, float], lags: int) -> float:
    """Newey & West (1987): every pair of periods, weighted by how far they are apart."""
    n = len(values)
    lags = min(lags, n - 1)
    mean = math.fsum(values.values()) / n
    total = [
        (1 - abs(t - s) / (lags + 1)) * (a - mean) * (b - mean)
        for t, a in values.items()
        for s, b in values.items()
        if abs(t - s) <= lags
    ]
    return math.fsum(total) / n


def t_tail(x: float, freedom: int) -> float:
    """P(T > x) of Student's t, by integrating its density."""
    log_scale = special.gammaln((freedom + 1) / 2) - special.gammaln(freedom / 2)
    scale = math.exp(log_scale) / math.sqrt(freedom * math.pi)
    inner, _ = integrate.quad(lambda u: scale * (1 + u * u / freedom) ** (-(freedom + 1) / 2), 0, abs(x))
    return 0.5 - inner if x > 0 else 0.5 + inner


@given(series, st.integers(0, 9))
def test_the_long_run_variance_is_what_its_formula_says(values: dict[int, float], lags: int) -> None:
    ordered = dict(sorted(values.items()))

    found = long_run_variance(np.array(list(ordered.values())), np.array(list(ordered)), lags)

    assert found == pytest.approx(variance_oracle(ordered, lags), abs=1e-8)
    assert found >= -1e-8


@pytest.mark.parametrize("horizon", [1, 2, 8])
@pytest.mark.parametrize("periods", [range(16), range(5, 77), [*range(8), *range(40, 56)]], ids=len)
def test_the_test_is_what_its_formulas_say(periods: list[int], horizon: int) -> None:
    dice = np.random.default_rng(len(periods) + horizon)
    champion = losses({t: dice.normal(0.2, 0.03) for t in periods})
    challenger = losses({t: dice.normal(0.19, 0.03) for t in periods})
    n, gain = len(periods), dict(champion - challenger)
    mean = math.fsum(gain.values()) / n
    plain = mean / math.sqrt(variance_oracle(gain, horizon - 1) / n)
    corrected = plain * math.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)

    found = diebold_mariano(champion, challenger, horizon)

    assert found.enough
    assert (found.periods, found.difference) == (n, pytest.approx(mean))
    assert found.statistic == pytest.approx(corrected)
    assert found.p_value == pytest.approx(t_tail(corrected, n - 1), abs=1e-9)


def within_windows(dice: np.random.Generator, windows: int, share: float) -> np.ndarray:
    """Loss differences of mean 0; `share` of their variance is common to the 8 periods of a window."""
    common = np.repeat(dice.normal(size=windows), 8)
    return math.sqrt(share) * common + math.sqrt(1 - share) * dice.normal(size=8 * windows)


@pytest.mark.parametrize(
    ("share", "lowest", "highest"),
    [
        pytest.param(0.0, 0.03, 0.07, id="independent periods"),
        pytest.param(0.6, 0.05, 0.13, id="windows with common surprises"),
    ],
)
def test_equal_models_are_told_apart_about_as_often_as_the_level_says(
    share: float, lowest: float, highest: float
) -> None:
    dice = np.random.default_rng(11)
    none = losses(dict.fromkeys(range(72), 0.0))

    found = [
        diebold_mariano(losses(dict(enumerate(within_windows(dice, 9, share)))), none, 8) for _ in range(1000)
    ]

    assert lowest <= np.mean([test.p_value <= 0.05 for test in found]) <= highest


def test_a_better_model_is_found_and_a_worse_one_is_not() -> None:
    dice = np.random.default_rng(5)
    champion = losses({t: 0.2 + dice.normal(0, 0.02) for t in range(72)})
    better = champion - 0.01 + dice.normal(0, 0.01, 72)

    assert diebold_mariano(champion, better, 8).p_value < 0.01
    assert diebold_mariano(better, champion, 8).p_value > 0.99


def test_identical_losses_say_nothing() -> None:
    same = losses({t: 0.2 + t / 100 for t in range(40)})

    found = diebold_mariano(same, same, 8)

    assert (found.difference, found.statistic, found.p_value) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(("gain", "p_value"), [(0.01, 0.0), (-0.01, 1.0)], ids=["better", "worse"])
def test_the_same_gain_in_every_period_leaves_no_doubt(gain: float, p_value: float) -> None:
    champion = losses({t: 0.2 + t / 7 for t in range(16)})

    found = diebold_mariano(champion, champion - gain, 8)

    assert found.p_value == p_value
    assert found.statistic == math.copysign(math.inf, gain)


@pytest.mark.parametrize("periods", [0, 1, 15])
def test_too_few_periods_are_not_enough(periods: int) -> None:
    champion = losses({t: 0.2 + t / 100 for t in range(periods)})

    found = diebold_mariano(champion, champion / 2, 8)

    assert not found.enough
    assert (found.periods, found.needed) == (periods, 16)
    assert math.isnan(found.p_value)


def test_only_periods_of_both_count() -> None:
    champion = losses({t: 0.2 + t / 100 for t in range(20)})
    challenger = losses({t: 0.1 + (t % 3) / 100 for t in range(2, 30)})

    found = diebold_mariano(champion, challenger, 2)

    assert found.periods == 18
    assert found == diebold_mariano(champion.loc[2:], challenger.loc[:19], 2)


def test_the_order_of_periods_does_not_matter() -> None:
    dice = np.random.default_rng(2)
    champion, challenger = (losses(dict(enumerate(dice.normal(0.2, 0.03, 24)))) for _ in range(2))

    backwards = diebold_mariano(champion.iloc[::-1], challenger.iloc[::-1], 8)

    assert backwards.statistic == pytest.approx(diebold_mariano(champion, challenger, 8).statistic)


def test_losses_that_are_no_numbers_are_an_error() -> None:
    champion = losses(dict.fromkeys(range(16), 0.2))

    with pytest.raises(ValueError, match="1 of 16 losses are not finite"):
        diebold_mariano(champion.mask(champion.index == 3), champion, 8)


def test_a_horizon_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1 period, not 0"):
        diebold_mariano(losses({1: 0.2}), losses({1: 0.2}), 0)


def test_a_period_is_one_loss_over_all_series_and_cutoffs() -> None:
    rows = pd.DataFrame(
        {
            "t": [5, 5, 4, 4, 6, 7, 7],
            "actual": [10.0, -30.0, 50.0, math.nan, math.nan, 0.0, 0.0],
            "forecast": [12.0, -26.0, 40.0, 7.0, 1.0, 0.0, 1.0],
        }
    )

    found = period_losses(rows)

    assert dict(found) == pytest.approx({4: 0.2, 5: 0.15})


def test_a_missing_forecast_is_not_hidden_in_a_period() -> None:
    rows = pd.DataFrame({"t": [5, 5], "actual": [10.0, 30.0], "forecast": [12.0, math.nan]})

    assert math.isnan(period_losses(rows).loc[5])
