"""The gate: identical models are refused, better ones promoted, and a refusal names the broken limit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.core.evidence import Evidence, segments, side_by_side
from turnover_assets.core.gate import Decision, decide
from turnover_assets.core.gate_checks import Limits
from turnover_assets_tests.factories import walmart_like

KEYS = ("store", "dept")
HORIZON, FIRST = 8, 1000
CHECKS = [
    "finite",
    "margin",
    "significance",
    "untouched_windows",
    "bias",
    "coverage_80",
    "coverage_95",
    "worst_segment",
]


def backtest(error: float, *, seed: int = 0, windows: int = 4, noise: float = 0.02) -> pd.DataFrame:
    """Rows of a model that misses by about `error` of each actual, up and down in turn.

    3 stores x 4 departments; intervals hold 80 and 95 % of the actuals. `noise` is drawn by seed.
    """
    dice = np.random.default_rng(seed)
    cutoffs = range(FIRST, FIRST + windows * HORIZON, HORIZON)
    names = ["store", "dept", "cutoff", "horizon"]
    grid = pd.MultiIndex.from_product([range(3), range(4), cutoffs, range(1, HORIZON + 1)], names=names)
    rows = grid.to_frame(index=False)
    n = len(rows)
    rows["t"] = rows["cutoff"] + rows["horizon"]
    rows["actual"] = 100.0 + 10 * rows["dept"] + rows["horizon"]
    sign = np.where((rows["store"] + rows["dept"] + rows["t"]) % 2, 1.0, -1.0)
    rows["forecast"] = rows["actual"] * (1 + sign * error * (1 + noise * dice.normal(size=n)))
    inside = {80: np.arange(n) % 10 < 8, 95: np.arange(n) % 20 < 19}
    for level, held in inside.items():
        rows[f"lower_{level}"] = rows["actual"] + np.where(held, -20.0, 1.0)
        rows[f"upper_{level}"] = rows["actual"] + 20.0
    return rows


def evidence(challenger: pd.DataFrame, champion: pd.DataFrame | None, **changes: Any) -> Evidence:
    return Evidence(walmart_like(), challenger, champion, **changes)


def failed(decision: Decision) -> list[str]:
    return list(decision.checks.loc[~decision.checks["passed"], "check"])


def scaled(rows: pd.DataFrame, where: pd.Series, factor: float) -> pd.DataFrame:
    """Rows with errors `factor` times as large where told."""
    error = rows["forecast"] - rows["actual"]
    return rows.assign(forecast=rows["actual"] + error.where(~where, factor * error))


# Between two models -------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.floats(0.01, 0.5), st.integers(1, 5))
@settings(max_examples=25)
def test_identical_models_are_refused(seed: int, error: float, windows: int) -> None:
    rows = backtest(error, seed=seed, windows=windows)

    decision = decide(evidence(rows, rows.copy()))

    assert not decision.promoted
    assert failed(decision) == ["margin", "significance"]


@given(st.integers(0, 1000), st.floats(0.05, 0.4), st.floats(0.5, 0.95), st.integers(2, 6))
@settings(max_examples=25)
def test_a_model_that_is_better_throughout_is_promoted(
    seed: int, error: float, share: float, windows: int
) -> None:
    champion = backtest(error, seed=seed, windows=windows)
    challenger = backtest(error * share, seed=seed + 1, windows=windows)

    decision = decide(evidence(challenger, champion))

    assert decision.promoted, decision.reasons
    assert list(decision.checks["check"]) == CHECKS
    assert len(decision.reasons) == len(CHECKS)
    assert decide(evidence(champion, challenger)).promoted is False


def test_a_promotion_tells_its_evidence() -> None:
    decision = decide(evidence(backtest(0.1, noise=0), backtest(0.2, noise=0)))

    assert "WAPE is 10.00 %, the champion's 20.00 %; at most 19.80 % is allowed." in decision.reasons
    assert decision.figures["wape_improvement"] == pytest.approx(0.5)
    assert decision.figures["challenger_wape"] == pytest.approx(0.1)
    assert decision.figures["champion_coverage_80"] == pytest.approx(0.8, abs=0.01)
    assert decision.figures["dm_periods"] == 32
    assert decision.figures["promoted"] == 1.0
    assert decision.figures["passed_bias"] == 1.0


def too_narrow(rows: pd.DataFrame, level: int, outside: float) -> pd.DataFrame:
    """Rows of whose intervals a share no longer holds its actual."""
    missed = np.arange(len(rows)) % 100 < 100 * outside
    lower = np.where(missed, rows["actual"] + 1, rows["actual"] - 1)
    return rows.assign(**{f"lower_{level}": lower, f"upper_{level}": rows["actual"] + 2})


def biased(rows: pd.DataFrame) -> pd.DataFrame:
    """All errors downwards."""
    return rows.assign(forecast=rows["actual"] - (rows["forecast"] - rows["actual"]).abs())


def erratic(rows: pd.DataFrame) -> pd.DataFrame:
    """Much better in one window, somewhat worse in all others."""
    lucky = rows["cutoff"] == FIRST
    return scaled(scaled(rows, lucky, 0.3), ~lucky, 2.05)


BREAKS = {
    "margin": lambda rows: scaled(rows, rows["actual"] > 0, 1.994),
    "significance": erratic,
    "bias": biased,
    "coverage_80": lambda rows: too_narrow(rows, 80, 0.4),
    "coverage_95": lambda rows: too_narrow(rows, 95, 0.15),
    "worst_segment": lambda rows: scaled(rows, rows["dept"] == 2, 2.3),
}


@pytest.mark.parametrize("name", BREAKS)
def test_one_broken_limit_refuses_and_is_the_one_named(name: str) -> None:
    champion = backtest(0.2)
    challenger = BREAKS[name](backtest(0.1, seed=1))

    decision = decide(evidence(challenger, champion))

    assert failed(decision) == [name]
    assert not decision.promoted
    found = decision.checks.set_index("check").loc[name]
    assert decision.reasons == (found["finding"],)
    assert decision.figures[f"passed_{name}"] == 0.0


@pytest.mark.parametrize("name", ["bias", "coverage_80", "coverage_95"])
def test_a_limit_that_the_champion_breaks_as_well_does_not_keep_it(name: str) -> None:
    champion = BREAKS[name](backtest(0.2))
    challenger = BREAKS[name](backtest(0.1, seed=1))

    assert decide(evidence(challenger, champion)).promoted


def test_a_refusal_tells_both_figures_and_the_limit() -> None:
    challenger = BREAKS["worst_segment"](backtest(0.1, noise=0))

    decision = decide(evidence(challenger, backtest(0.2, noise=0)))

    assert decision.reasons == (
        "The dept that fares worst is 2, with a WAPE of 23.00 %, the champion's 20.00 %; "
        "at most 22.00 % is allowed.",
    )


def test_small_segments_are_not_checked() -> None:
    small = {"actual", "forecast", "lower_80", "upper_80", "lower_95", "upper_95"}
    champion, challenger = backtest(0.2), BREAKS["worst_segment"](backtest(0.1, seed=1))
    for rows in (champion, challenger):
        rows.loc[rows["dept"] == 2, list(small)] *= 0.01

    decision = decide(evidence(challenger, champion))

    assert decision.promoted
    assert decide(evidence(challenger, champion), Limits(segment_share=0.001)).promoted is False


def test_too_few_periods_are_a_refusal() -> None:
    decision = decide(evidence(backtest(0.1, windows=1), backtest(0.2, windows=1)))

    assert failed(decision) == ["significance"]
    assert decision.reasons == ("The Diebold-Mariano test has 8 periods; it needs at least 16.",)
    assert "dm_p_value" not in decision.figures


def test_a_challenger_without_intervals_is_refused() -> None:
    bounds = ["lower_80", "upper_80", "lower_95", "upper_95"]
    challenger = backtest(0.1).assign(**dict.fromkeys(bounds, np.nan))

    decision = decide(evidence(challenger, backtest(0.2)))

    assert failed(decision) == ["coverage_80", "coverage_95"]
    assert decision.reasons[0] == "There are no 80 % intervals to check; they must be calibrated."


def test_a_forecast_that_is_no_number_is_refused_at_once() -> None:
    challenger = backtest(0.1)
    challenger.loc[3, "forecast"] = np.inf

    decision = decide(evidence(challenger, backtest(0.2)))

    assert failed(decision) == ["finite"]
    assert decision.reasons == ("1 of 384 forecasts are not finite numbers; none may be.",)


# Windows and tuning -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tuned_until", "untouched"),
    [(FIRST, 4), (FIRST + 1, 3), (FIRST + 24, 1), (FIRST + 25, 0), (None, 4)],
)
def test_windows_count_as_untouched_when_they_begin_after_tuning(
    tuned_until: int | None, untouched: int
) -> None:
    decision = decide(evidence(backtest(0.1), backtest(0.2), tuned_until=tuned_until))

    assert decision.figures["untouched_windows"] == untouched
    assert failed(decision) == ([] if untouched else ["untouched_windows"])


def test_a_gain_on_tuned_windows_only_is_refused() -> None:
    challenger = backtest(0.1, seed=1)
    challenger = scaled(challenger, challenger["cutoff"] == FIRST + 24, 2.05)

    decision = decide(evidence(challenger, backtest(0.2), tuned_until=FIRST + 20))

    assert failed(decision) == ["untouched_wape"]
    assert decide(evidence(challenger, backtest(0.2))).promoted


def test_untouched_windows_are_compared_with_the_champions_own() -> None:
    challenger, champion = backtest(0.1, seed=1), backtest(0.2)
    champion = scaled(champion, champion["cutoff"] == FIRST + 24, 0.4)

    decision = decide(evidence(challenger, champion, tuned_until=FIRST + 20))

    assert "untouched_wape" in failed(decision)
    found = decision.checks.set_index("check").loc["untouched_wape"]
    assert found["champion"] == pytest.approx(0.08, abs=0.005)


def test_a_window_without_outcomes_is_no_untouched_window() -> None:
    champion, challenger = backtest(0.2), backtest(0.1)
    for rows in (champion, challenger):
        rows.loc[rows["cutoff"] == FIRST + 24, "actual"] = np.nan

    decision = decide(evidence(challenger, champion, tuned_until=FIRST + 20))

    assert failed(decision) == ["untouched_windows"]


# Live forecasts -----------------------------------------------------------------------------------


def test_worse_live_forecasts_are_a_refusal() -> None:
    live = {"live_challenger": backtest(0.25, seed=2), "live_champion": backtest(0.2, seed=3)}

    decision = decide(evidence(backtest(0.1), backtest(0.2), **live))

    assert failed(decision) == ["live_wape"]
    assert decision.figures["live_challenger_wape"] == pytest.approx(0.25, abs=0.01)


def test_only_live_rows_of_both_count() -> None:
    worse = backtest(0.2, seed=2, windows=2)
    live = {"live_challenger": worse, "live_champion": backtest(0.2, seed=2, windows=1)}
    live["live_challenger"] = scaled(worse, worse["cutoff"] > FIRST, 9.0)

    decision = decide(evidence(backtest(0.1), backtest(0.2), **live))

    assert decision.promoted
    assert decision.figures["live_challenger_wape"] == pytest.approx(0.2, abs=0.01)


def test_live_forecasts_without_an_outcome_are_not_judged() -> None:
    live = {name: backtest(0.2).assign(actual=np.nan) for name in ("live_challenger", "live_champion")}

    decision = decide(evidence(backtest(0.1), backtest(0.2), **live))

    assert decision.promoted
    assert "live_wape" not in set(decision.checks["check"])


def test_a_champion_that_could_not_be_compared_is_not_replaced() -> None:
    rows = backtest(0.0)

    decision = decide(evidence(rows, None, is_absent=True))

    assert not decision.promoted
    assert failed(decision) == ["compared"]
    assert "TURNOVER_BACKTEST_WINDOWS" in " ".join(decision.reasons)


def test_where_nothing_was_sold_the_champion_stays() -> None:
    rows = backtest(0.1).assign(actual=0.0)

    decision = decide(evidence(rows, rows.copy()))

    assert not decision.promoted
    assert failed(decision) == ["outcomes"]


# The first champion -------------------------------------------------------------------------------


def test_a_sane_model_becomes_the_first_champion() -> None:
    decision = decide(evidence(backtest(0.3), None, naive=backtest(0.4)))

    assert decision.promoted
    assert decision.warnings == ()
    assert list(decision.checks["check"]) == ["finite", "max_wape"]
    assert decision.figures["naive_wape"] == pytest.approx(0.4, abs=0.01)


def test_a_first_champion_worse_than_seasonal_naive_is_a_warning() -> None:
    decision = decide(evidence(backtest(0.3, noise=0), None, naive=backtest(0.2, noise=0)))

    assert decision.promoted
    assert decision.warnings == ("WAPE is 30.00 %, higher than the seasonal naive forecast's 20.00 %.",)


def test_a_first_champion_that_could_not_be_judged_is_a_warning() -> None:
    decision = decide(evidence(backtest(0.3).assign(actual=np.nan), None))

    assert decision.promoted
    assert decision.warnings[0].startswith("No past period could be forecast and compared yet")


@pytest.mark.parametrize(
    ("rows", "check"),
    [
        (backtest(1.5), "max_wape"),
        (backtest(0.1).assign(forecast=np.nan), "finite"),
        (backtest(0.1).iloc[:0], "finite"),
    ],
    ids=["worse than nothing", "no number", "no forecast"],
)
def test_an_insane_model_does_not_become_the_first_champion(rows: pd.DataFrame, check: str) -> None:
    decision = decide(evidence(rows, None))

    assert not decision.promoted
    assert failed(decision) == [check]


def test_a_broken_champion_is_replaced_with_a_warning() -> None:
    champion = backtest(0.1)
    champion.loc[5, "forecast"] = np.nan

    decision = decide(evidence(backtest(0.3), champion))

    assert decision.promoted
    assert decision.warnings == (
        "1 of the champion's forecasts are not finite numbers, so it was not compared.",
    )


# Lining up ----------------------------------------------------------------------------------------


def test_rows_of_other_series_or_windows_are_an_error() -> None:
    champion, challenger = backtest(0.2, windows=3), backtest(0.1).iloc[5:]

    with pytest.raises(ValueError, match="96 only of the challenger, 5 only of the champion, 283 of both"):
        decide(evidence(challenger, champion))


def test_two_rows_for_one_forecast_are_an_error() -> None:
    rows = backtest(0.1)

    with pytest.raises(ValueError, match="the champion has 2 rows more than one"):
        decide(evidence(rows, pd.concat([rows, rows.iloc[:2]])))


def test_rows_without_any_outcome_are_an_error() -> None:
    rows = backtest(0.1).assign(actual=np.nan)

    with pytest.raises(ValueError, match="none of 384 rows has a known actual"):
        decide(evidence(rows, rows))


@given(st.randoms())
@settings(max_examples=10)
def test_the_order_of_rows_does_not_matter(dice: Any) -> None:
    champion, challenger = backtest(0.2), erratic(backtest(0.1, seed=1))
    order = list(range(len(champion)))
    dice.shuffle(order)

    decision = decide(evidence(challenger, champion.iloc[order]))

    assert decision.figures == pytest.approx(decide(evidence(challenger, champion)).figures)


def test_both_are_judged_against_the_challengers_actuals() -> None:
    champion = backtest(0.2)
    restated = backtest(0.1).assign(actual=lambda rows: rows["actual"] * 2)

    pair = side_by_side(restated, champion.sample(frac=1, random_state=1), KEYS)

    assert pair is not None
    assert list(pair.champion["actual"]) == list(restated["actual"])
    assert list(pair.champion["forecast"]) == list(champion["forecast"])


def test_every_member_has_the_accuracy_of_its_rows() -> None:
    champion, challenger = backtest(0.2), backtest(0.1, seed=1)
    challenger.loc[::7, "actual"] = np.nan
    pair = side_by_side(challenger, champion, KEYS)
    assert pair is not None

    found = segments(pair, "dept", 0.0)

    for member, row in found.iterrows():
        known = challenger[(challenger["dept"] == member) & challenger["actual"].notna()]
        size = known["actual"].sum()
        assert row["challenger"] == pytest.approx((known["forecast"] - known["actual"]).abs().sum() / size)
        theirs = champion["forecast"].loc[known.index]
        assert row["champion"] == pytest.approx((theirs - known["actual"]).abs().sum() / size)
        assert row["change"] == pytest.approx(row["challenger"] / row["champion"] - 1)
    assert list(found["change"]) == sorted(found["change"], reverse=True)


@pytest.mark.parametrize(("minimum", "members"), [(0.23, {1, 2, 3}), (0.25, {2, 3}), (0.3, set())])
def test_only_members_with_the_share_asked_for_are_compared(minimum: float, members: set[int]) -> None:
    pair = side_by_side(backtest(0.1), backtest(0.2), KEYS)
    assert pair is not None

    assert set(segments(pair, "dept", minimum).index) == members


def test_a_champion_without_an_error_cannot_be_reached_by_one_with_errors() -> None:
    perfect = backtest(0.0)
    pair = side_by_side(scaled(backtest(0.1), perfect["dept"] > 0, 0.0), perfect, KEYS)
    assert pair is not None

    found = segments(pair, "dept", 0.0)

    assert dict(found["change"]) == {0: np.inf, 1: 0.0, 2: 0.0, 3: 0.0}


# Limits -------------------------------------------------------------------------------------------


def test_limits_decide_as_they_are_set() -> None:
    judged = evidence(backtest(0.1, noise=0), backtest(0.2, noise=0))

    assert decide(judged, Limits(margin=0.5)).promoted
    assert failed(decide(judged, replace(Limits(), margin=0.51))) == ["margin"]
