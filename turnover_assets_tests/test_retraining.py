"""When to retrain: the policy's table of verdicts, its memory, and how much of a history has changed."""

from dataclasses import replace
from datetime import date
from math import isnan, nan

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnover_assets.core.retraining import (
    RETRAINING,
    Facts,
    Policy,
    Verdict,
    decide,
    keep_verdict,
    last_verdict,
)
from turnover_assets.core.trained_history import TRAINED, changed_since_training, keep_trained_history
from turnover_assets.defs.retraining import live_bias
from turnover_assets_tests.factories import make_panel

POLICY = Policy(
    every=8, changed_share=0.02, accuracy_ratio=1.2, cooldown=4, evidence=4, drifted_share=0.3, bias=0.1
)
CALM = Facts(periods_since_training=4, changed_share=0.0, live_ratio=0.5, promised_ratio=0.5, live_periods=4)
CAUSES = ("champion", "settings", "history", "age", "accuracy", "bias", "drift")

# The policy


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        pytest.param(CALM, "", id="calm"),
        pytest.param(replace(CALM, unusable="There is no champion."), "champion", id="no champion"),
        pytest.param(replace(CALM, outdated="Another release."), "settings", id="outdated"),
        pytest.param(replace(CALM, periods_since_training=7), "", id="a period too young"),
        pytest.param(replace(CALM, periods_since_training=8), "age", id="just old enough"),
        pytest.param(replace(CALM, changed_share=0.02), "", id="change at the limit"),
        pytest.param(replace(CALM, changed_share=0.0201), "history", id="change above the limit"),
        pytest.param(replace(CALM, changed_share=nan), "", id="change not known"),
        pytest.param(replace(CALM, live_ratio=0.6), "", id="accuracy at the limit"),
        pytest.param(replace(CALM, live_ratio=0.601), "accuracy", id="accuracy lost"),
        pytest.param(replace(CALM, live_ratio=0.9, live_periods=3), "", id="too few outcomes"),
        pytest.param(replace(CALM, live_ratio=0.9, periods_since_training=3), "", id="still cooling down"),
        pytest.param(replace(CALM, live_ratio=nan), "", id="accuracy not known"),
        pytest.param(replace(CALM, live_ratio=0.9, promised_ratio=nan), "", id="promise not known"),
        pytest.param(replace(CALM, live_ratio=0.9, promised_ratio=0.0), "", id="promise of nothing"),
        pytest.param(replace(CALM, live_bias=-0.1, tracking_signal=-8), "", id="bias at the limit"),
        pytest.param(replace(CALM, live_bias=-0.101, tracking_signal=-4), "bias", id="too low"),
        pytest.param(replace(CALM, live_bias=0.101, tracking_signal=4), "bias", id="too high"),
        pytest.param(replace(CALM, live_bias=0.5, tracking_signal=3.9), "", id="bias of single periods"),
        pytest.param(replace(CALM, live_bias=0.5, tracking_signal=nan), "", id="sides not known"),
        pytest.param(
            replace(CALM, live_bias=0.5, tracking_signal=8, periods_since_training=3),
            "",
            id="bias that lasts",
        ),
        pytest.param(replace(CALM, drifted_share=0.3), "", id="drift at the limit"),
        pytest.param(replace(CALM, drifted_share=0.31), "drift", id="drift above the limit"),
        pytest.param(replace(CALM, drifted_share=0.9, periods_since_training=3), "", id="drift that lasts"),
        pytest.param(replace(CALM, drifted_share=nan), "", id="drift not known"),
        pytest.param(Facts(), "", id="nothing known"),
    ],
)
def test_each_cause_and_its_border(facts: Facts, cause: str) -> None:
    verdict = decide(facts, POLICY)

    assert (verdict.due, verdict.cause) == (bool(cause), cause)


@pytest.mark.parametrize("worst", range(len(CAUSES)), ids=CAUSES)
def test_the_first_cause_that_holds_is_named(worst: int) -> None:
    everything = {
        "unusable": "There is no champion.",
        "outdated": "Another release.",
        "changed_share": 0.5,
        "periods_since_training": 8,
        "live_ratio": 0.9,
        "live_bias": 0.9,
        "drifted_share": 0.9,
    }

    facts = replace(CALM, tracking_signal=8, **dict(list(everything.items())[worst:]))

    assert decide(facts, POLICY).cause == CAUSES[worst]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(CALM, unusable="There is no champion."), ["There is no champion."]),
        (replace(CALM, changed_share=0.051), ["5.1% of the history", "limit 2.0%"]),
        (replace(CALM, periods_since_training=9), ["9 periods ago", "limit 8"]),
        (replace(CALM, live_ratio=0.7), ["0.70 of seasonal naive's error", "0.50 was promised", "1.2 times"]),
        (CALM, ["Not due", "4 of 8 periods old", "0.0% of its history changed", "0.50 of seasonal"]),
        (replace(CALM, live_periods=1), ["Not due", "too few outcomes"]),
        (replace(CALM, live_ratio=0.9, periods_since_training=1), ["Not due", "training 1 periods ago"]),
        (
            replace(CALM, live_bias=-0.56, tracking_signal=-8),
            ["Published forecasts were 56.0% too low in total (limit 10% either way)."],
        ),
        (replace(CALM, drifted_share=0.42), ["42% of the features", "than a year ago (limit 30%)."]),
        (replace(CALM, drifted_share=0.12), ["Not due", "0.50 of seasonal", "12% of the features"]),
        (
            replace(CALM, drifted_share=0.42, periods_since_training=1),
            ["Not due", "42% of the features", "too much, but training 1 periods ago"],
        ),
    ],
    ids=[
        *("champion", "history", "age", "accuracy", "calm", "few", "cooldown"),
        *("bias", "drift", "some drift", "lasting drift"),
    ],
)
def test_the_sentence_gives_the_figures(facts: Facts, said: list[str]) -> None:
    sentence = decide(facts, POLICY).sentence

    assert [text for text in said if text not in sentence] == []
    assert not sentence[0].islower()
    assert sentence.endswith(".")


ratios = st.one_of(st.just(nan), st.floats(0.0, 3.0))
facts_of_any_kind = st.builds(
    Facts,
    unusable=st.sampled_from(["", "", "None."]),
    outdated=st.sampled_from(["", "", "Old."]),
    periods_since_training=st.integers(0, 12),
    changed_share=ratios,
    live_ratio=ratios,
    promised_ratio=ratios,
    live_periods=st.integers(0, 10),
    drifted_share=ratios,
    live_bias=st.one_of(ratios, st.floats(-1.0, 0.0)),
    tracking_signal=st.one_of(st.just(nan), st.floats(-8.0, 8.0)),
)


def causes_by_table(facts: Facts, policy: Policy) -> list[str]:
    """Every cause that holds, each by itself."""
    judged = facts.live_periods >= policy.evidence and facts.periods_since_training >= policy.cooldown
    lost = judged and facts.promised_ratio > 0 and facts.live_ratio / facts.promised_ratio > 1.2
    holds = {
        "champion": facts.unusable != "",
        "settings": facts.outdated != "",
        "history": not isnan(facts.changed_share) and facts.changed_share > policy.changed_share,
        "age": facts.periods_since_training >= policy.every,
        "accuracy": lost,
        "bias": abs(facts.live_bias) > 0.1
        and abs(facts.tracking_signal) >= 4
        and facts.periods_since_training >= policy.cooldown,
        "drift": facts.drifted_share > 0.3 and facts.periods_since_training >= policy.cooldown,
    }
    return [cause for cause in CAUSES if holds[cause]]


@given(facts_of_any_kind)
def test_a_verdict_is_due_where_any_cause_holds_and_always_says_something(facts: Facts) -> None:
    verdict = decide(facts, POLICY)

    holds = causes_by_table(facts, POLICY)
    assert verdict.due == bool(holds)
    assert verdict.cause == (holds[0] if holds else "")
    assert verdict.sentence
    assert verdict.sentence.startswith("Not due") == (not holds)


@given(facts_of_any_kind, st.integers(0, 5))
def test_a_model_that_grows_older_is_never_less_due(facts: Facts, periods: int) -> None:
    older = replace(facts, periods_since_training=facts.periods_since_training + periods)

    assert decide(older, POLICY).due >= decide(facts, POLICY).due


# Its memory


def test_the_verdict_kept_last_is_read_and_all_stay(con: duckdb.DuckDBPyConnection) -> None:
    due = decide(replace(CALM, periods_since_training=9), POLICY)
    calm = decide(CALM, POLICY)

    keep_verdict(con, due, replace(CALM, periods_since_training=9), date(2030, 6, 1), "run 1")
    first = last_verdict(con)
    keep_verdict(
        con,
        calm,
        replace(CALM, drifted_share=0.1, live_bias=-0.02, tracking_signal=3.0),
        date(2030, 6, 8),
        "run 2",
    )

    assert (first, last_verdict(con)) == (due, calm)
    kept = con.execute(f"SELECT * EXCLUDE decided_at FROM {RETRAINING} ORDER BY decided_at").fetchall()
    assert kept == [
        (date(2030, 6, 1), "run 1", True, "age", due.sentence, 9, 0.0, 0.5, 0.5, 4, None, None, None),
        (date(2030, 6, 8), "run 2", False, "", calm.sentence, 4, 0.0, 0.5, 0.5, 4, 0.1, -0.02, 3.0),
    ]


def test_a_table_of_an_earlier_release_gets_the_column_that_it_lacks(con: duckdb.DuckDBPyConnection) -> None:
    keep_verdict(con, decide(CALM, POLICY), CALM, date(2030, 6, 1), "run 1")
    con.execute(f"ALTER TABLE {RETRAINING} DROP COLUMN drifted_share")

    keep_verdict(con, decide(CALM, POLICY), replace(CALM, drifted_share=0.2), date(2030, 6, 8), "run 2")

    kept = con.execute(f"SELECT run_id, drifted_share FROM {RETRAINING} ORDER BY run_id").fetchall()
    assert kept == [("run 1", None), ("run 2", 0.2)]


def test_nothing_is_due_where_nothing_was_decided(con: duckdb.DuckDBPyConnection) -> None:
    assert last_verdict(con) == Verdict(False, "", "Nothing was decided yet.")


def test_facts_that_are_not_known_can_be_kept(con: duckdb.DuckDBPyConnection) -> None:
    facts = Facts(unusable="There is no champion.")

    keep_verdict(con, decide(facts, POLICY), facts, date(2030, 6, 1), "run 1")

    assert last_verdict(con).as_dict() == {
        "due": True,
        "cause": "champion",
        "sentence": "There is no champion.",
    }


# Forecasts off to one side


def published(rows: list[tuple[str, int, int, int, float, float]]) -> pd.DataFrame:
    """Forecasts with outcomes: role, version, cutoff, period, forecast, outcome."""
    return pd.DataFrame(rows, columns=["role", "model_version", "cutoff", "t", "forecast", "actual"])


def test_the_bias_is_that_of_the_versions_own_forecasts_of_the_newest_periods() -> None:
    own = [("champion", 2, t - 1, t, 8.0, 10.0) for t in range(11, 15) for _ in range(3)]
    others = [
        *(("champion", 1, t - 2, t, 90.0, 10.0) for t in range(11, 15)),  # the champion before
        *(("baseline", 2, t - 1, t, 90.0, 10.0) for t in range(11, 15)),
        ("champion", 2, 9, 10, 90.0, 10.0),  # too long ago
    ]

    assert live_bias(published(own + others), 2, after=10) == pytest.approx((-0.2, -4.0))


def test_errors_that_take_turns_are_on_no_side_and_without_outcomes_nothing_is_known() -> None:
    turns = [("champion", 1, t - 1, t, 10.0 + (3.0 if t % 2 else -3.0), 10.0) for t in range(1, 9)]

    assert live_bias(published(turns), 1, after=0) == pytest.approx((0.0, 0.0))
    assert live_bias(published(turns), 2, after=0) == pytest.approx((nan, nan), nan_ok=True)


# Changed history

PANEL = make_panel()
Amounts = dict[tuple[int, int], float | None]  # by shop and period; None where it counts as missing


def put_amounts(con: duckdb.DuckDBPyConnection, amounts: Amounts) -> None:
    """Make the cleaned table hold these adjusted values."""
    con.execute("CREATE OR REPLACE TABLE cleaned.sales (shop BIGINT, t INTEGER, amount_adjusted DOUBLE)")
    if amounts:
        con.executemany("INSERT INTO cleaned.sales VALUES (?, ?, ?)", [[*k, v] for k, v in amounts.items()])


def changed_by_pandas(then: Amounts, now: Amounts) -> float:
    """The share that has changed, from two series side by side."""
    until = max(t for _, t in then)
    both = pd.DataFrame(
        {
            "then": pd.Series(then, dtype=float),
            "now": pd.Series({k: v for k, v in now.items() if k[1] <= until}),
        }
    )
    both = both.astype(float).fillna(0.0)
    total = both["then"].abs().sum()
    return float((both["now"] - both["then"]).abs().sum() / total) if total else nan


KEPT: Amounts = {(1, 1): 10.0, (1, 2): 20.0, (2, 1): 30.0, (2, 2): 40.0}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(KEPT, 0.0, id="nothing"),
        pytest.param(KEPT | {(1, 1): 15.0}, 0.05, id="restated"),
        pytest.param({k: v for k, v in KEPT.items() if k != (2, 2)}, 0.4, id="removed"),
        pytest.param(KEPT | {(3, 2): 5.0}, 0.05, id="came late"),
        pytest.param(KEPT | {(1, 3): 500.0, (3, 4): 7.0}, 0.0, id="new periods do not count"),
        pytest.param(KEPT | {(1, 2): None}, 0.2, id="counts as missing now"),
        pytest.param(KEPT | {(1, 2): -20.0}, 0.4, id="turned sign"),
        pytest.param({}, 1.0, id="all gone"),
    ],
)
def test_what_has_changed_since_training(
    con: duckdb.DuckDBPyConnection, now: Amounts, expected: float
) -> None:
    put_amounts(con, KEPT)
    keep_trained_history(con, PANEL)
    put_amounts(con, now)

    assert changed_since_training(con, PANEL) == pytest.approx(expected)


histories = st.dictionaries(
    st.tuples(st.integers(1, 3), st.integers(1, 5)),
    st.one_of(st.none(), st.integers(-50, 100).map(float)),
    max_size=12,
)


@given(then=histories.filter(bool), now=histories)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_changed_share_agrees_with_pandas(
    shared_con: duckdb.DuckDBPyConnection, then: Amounts, now: Amounts
) -> None:
    put_amounts(shared_con, then)
    keep_trained_history(shared_con, PANEL)
    put_amounts(shared_con, now)

    found = changed_since_training(shared_con, PANEL)

    np.testing.assert_allclose(found, changed_by_pandas(then, now))


def test_a_new_training_begins_anew(con: duckdb.DuckDBPyConnection) -> None:
    put_amounts(con, KEPT)
    keep_trained_history(con, PANEL)
    put_amounts(con, KEPT | {(1, 1): 15.0})

    keep_trained_history(con, PANEL)

    assert changed_since_training(con, PANEL) == 0.0
    assert con.execute(f"SELECT count(*) FROM {TRAINED}").fetchall() == [(4,)]


def test_the_changed_share_is_not_known_where_nothing_was_trained(con: duckdb.DuckDBPyConnection) -> None:
    put_amounts(con, KEPT)

    assert isnan(changed_since_training(con, PANEL))
