"""Conformal quantiles against their definition, and the spread against least squares done elsewhere."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.core.conformal import (
    BOUNDS,
    FLOOR,
    GIVEN,
    NEAR_ZERO,
    OWN_QUANTILES,
    Calibration,
    Spread,
    conformal_quantile,
)

weighted = st.lists(
    st.tuples(st.integers(0, 50).map(float), st.sampled_from([0.25, 0.5, 1.0])), min_size=1, max_size=30
)


def quantile_oracle(rows: list[tuple[float, float]], level: float) -> float:
    """The smallest score whose weight and that of all smaller ones reach the corrected level."""
    whole = sum(weight for _, weight in rows)
    effective = whole**2 / sum(weight**2 for _, weight in rows)
    for score in sorted({score for score, _ in rows}):
        if sum(w for s, w in rows if s <= score) / whole >= level * (1 + 1 / effective) - 1e-12:
            return score
    return max(score for score, _ in rows)


@given(weighted, st.sampled_from([0.5, 0.8, 0.95]))
def test_the_quantile_is_what_its_definition_says(rows: list[tuple[float, float]], level: float) -> None:
    scores, weights = np.array(rows).T

    assert conformal_quantile(scores, weights, level) == quantile_oracle(rows, level)


def test_a_new_score_lies_below_the_quantile_at_least_as_often_as_promised() -> None:
    dice = np.random.default_rng(1)
    hits = []
    for _ in range(4000):
        *known, new = dice.exponential(size=13)
        hits.append(new <= conformal_quantile(np.array(known), np.ones(12), 0.8))

    assert 0.8 - 0.02 <= np.mean(hits) <= 0.8 + 1 / 13 + 0.02


def make_facts(count: int, seed: int) -> pd.DataFrame:
    dice = np.random.default_rng(seed)
    facts = pd.DataFrame({"horizon": dice.integers(1, 9, count), "scale": dice.lognormal(5.0, 1.0, count)})
    facts["forecast"] = facts["scale"] * dice.lognormal(0.0, 0.5, count)
    facts["deviation"] = dice.uniform(0.1, 1.0, count)
    return facts


def test_the_spread_is_the_least_squares_fit_of_the_logarithms() -> None:
    facts = make_facts(20_000, seed=2)
    error = facts["scale"].to_numpy() * np.random.default_rng(3).normal(size=len(facts))
    weights = np.random.default_rng(4).uniform(0.5, 1.0, len(facts))

    found = Spread.fit(facts, error, weights, ["horizon", "forecast"])

    columns = [np.log(facts["horizon"]), np.log(facts["forecast"] / facts["scale"] + NEAR_ZERO)]
    columns[1] = columns[1].clip(*np.quantile(columns[1], [0.001, 0.999]))
    x = np.column_stack([np.ones(len(facts)), *columns]) * np.sqrt(weights)[:, None]
    y = np.log(np.abs(error) / facts["scale"] + FLOOR) * np.sqrt(weights)
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    assert [term.slope for term in found.terms] == pytest.approx(list(expected[1:]), rel=0.01, abs=1e-4)
    np.testing.assert_allclose(
        np.log(found.of(facts) / facts["scale"]), (x @ expected) / np.sqrt(weights), atol=1e-3
    )


def test_the_spread_follows_what_makes_errors_large() -> None:
    facts = make_facts(20_000, seed=5)
    usual = 0.3 * facts["scale"] * facts["horizon"] ** 0.5 * facts["deviation"]
    error = usual.to_numpy() * np.random.default_rng(6).normal(size=len(facts))

    found = Spread.fit(facts, error, np.ones(len(facts)), ["horizon", "deviation"])

    ratio = found.of(facts) / usual
    assert ratio.quantile(0.95) / ratio.quantile(0.05) < 2  # of the scale alone: more than 10


def test_a_fact_that_is_missing_counts_as_the_usual_one() -> None:
    facts = make_facts(5000, seed=7)
    error = facts["scale"].to_numpy() * facts["deviation"].to_numpy()
    found = Spread.fit(facts, error, np.ones(len(facts)), ["deviation"])

    (term,) = found.terms
    usual = facts.assign(deviation=np.exp(term.centre) - NEAR_ZERO)

    for unknown in (facts.assign(deviation=np.nan), facts.drop(columns="deviation")):
        np.testing.assert_allclose(found.of(unknown), found.of(usual))


def test_what_is_everywhere_the_same_or_nowhere_known_is_left_out() -> None:
    facts = make_facts(500, seed=8).assign(horizon=3, deviation=np.nan)

    found = Spread.fit(facts, np.ones(500), np.ones(500), ["horizon", "deviation", "age", "size"])

    assert [term.name for term in found.terms] == ["size"]


def test_no_spread_goes_beyond_the_range_it_was_fitted_on() -> None:
    facts = make_facts(5000, seed=9)
    error = facts["horizon"].to_numpy() * facts["scale"].to_numpy()
    found = Spread.fit(facts, error, np.ones(5000), ["horizon"])
    one = facts.iloc[[0, 0]]

    at_the_edge, far_beyond = found.of(one.assign(horizon=[8, 1000]))

    assert at_the_edge == far_beyond


def test_a_slope_that_is_given_stays_whatever_the_errors_say_also_beyond_what_was_seen() -> None:
    facts = make_facts(5000, seed=13)
    facts["season_error"] = np.random.default_rng(14).uniform(0.1, 0.2, len(facts))
    error = facts["scale"].to_numpy() * facts["horizon"].to_numpy()

    found = Spread.fit(facts, error, np.ones(5000), ["horizon", "season"])
    one = facts.iloc[[0] * 4].assign(season_error=[0.15, 0.05, 0.6, np.nan])

    slope = GIVEN["season"]
    assert {term.name: term.slope for term in found.terms} == {
        "horizon": pytest.approx(1.0, abs=0.05),
        "season": slope,
    }
    usual, low, high, unknown = found.of(one)
    assert low / usual == pytest.approx((0.05 / 0.15) ** slope)
    assert high / usual == pytest.approx((0.6 / 0.15) ** slope)
    assert unknown == pytest.approx(found.of(one.drop(columns="season_error"))[0])
    assert low < unknown < high


@pytest.mark.parametrize("plenty", [True, False], ids=["enough rows", "too few rows"])
def test_a_horizon_has_quantiles_of_its_own_where_it_has_enough_rows(plenty: bool) -> None:
    count = OWN_QUANTILES if plenty else OWN_QUANTILES - 1
    facts = pd.DataFrame({"horizon": np.repeat([1, 2], count), "scale": 1.0, "forecast": 0.0})
    dice = np.random.default_rng(10)
    error = np.concatenate([dice.normal(size=count), dice.standard_t(2, size=count)])

    found = Calibration.fit(facts, error, np.ones(len(facts)), ["horizon"])

    same = found.quantiles.loc[1].to_numpy() == found.quantiles.loc[2].to_numpy()
    assert (~same).all() if plenty else same.all()


def test_bounds_hold_the_share_of_errors_that_they_should() -> None:
    facts = make_facts(20_000, seed=11)
    usual = facts["scale"] * facts["deviation"]
    error = usual.to_numpy() * np.random.default_rng(12).normal(size=len(facts))
    found = Calibration.fit(facts, error, np.ones(len(facts)), ["horizon", "forecast", "deviation"])

    bounds = found.bounds(facts, nonnegative=False)

    actual = facts["forecast"] + error
    for level in (80, 95):
        inside = actual.between(bounds[f"lower_{level}"], bounds[f"upper_{level}"])
        assert inside.mean() == pytest.approx(level / 100, abs=0.001)
    assert list(bounds.columns) == list(BOUNDS)
