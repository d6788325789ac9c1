"""Rules of whole tables: what each finds, what it says, and how its figures are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core import quality, table_rules
from turnover_assets.core.quality import Evaluation, TableRule
from turnover_assets.panel import PanelSpec
from turnover_assets_tests.factories import (
    daily,
    daily_history,
    default_history,
    default_panel,
    insert_frames,
    make_panel,
    walmart_history,
    walmart_like,
)

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
HISTORIES = {
    "default": (default_panel, default_history),
    "walmart-like": (walmart_like, walmart_history),
    "daily": (daily, daily_history),
}
RULE = TableRule("rule", "cleaned/sales", "It holds.", "Do this.", "SELECT 1", at_least=1)


def judged(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    rules: Sequence[TableRule] | None = None,
    *,
    run: int = 1,
    alive: int = 4,
) -> dict[str, Evaluation]:
    """Evaluate rules, put them on record as the run of that number, and give them by name."""
    values = quality.facts(con, panel, alive, f"run {run}", NOW + timedelta(minutes=run))
    chosen = table_rules.cleaned_rules(panel, 0.5, 0.9) if rules is None else rules
    found = quality.evaluate(con, chosen, values)
    quality.record(con, found, "version", values)
    return {evaluation.rule.name: evaluation for evaluation in found}


def history(
    con: duckdb.DuckDBPyConnection, weeks: Mapping[str, Sequence[int]], amount: float = 10.0
) -> PanelSpec:
    """The smallest panel with a row for each shop in each week, given by the weeks' labels."""
    panel = make_panel()
    rows = [(shop, week, amount) for week, shops in weeks.items() for shop in shops]
    insert_frames(con, panel, {"sales": pd.DataFrame(rows, columns=["shop", "week", "amount"])})
    return panel


def mondays(count: int) -> list[str]:
    return [str((datetime(2024, 1, 1) + timedelta(weeks=n)).date()) for n in range(count)]


# Cleaned tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(HISTORIES))
def test_a_sound_history_breaks_no_rule(con: duckdb.DuckDBPyConnection, name: str) -> None:
    panel, frames = HISTORIES[name][0](), HISTORIES[name][1]()
    if name == "default":
        frames["stores"]["region"] = frames["stores"]["region"].fillna("1")
    insert_frames(con, panel, frames)

    found = judged(con, panel)

    assert [e.message for e in found.values() if not e.passed] == []
    assert found["has_rows"].figure == len(frames[panel.series.name])
    assert {"attributes_known"} <= set(found) or not panel.static


DEFECTS = {
    "a column of another type": ("schema", "ALTER TABLE {sales} ALTER adjustment_id TYPE BIGINT", 1),
    "no rows": ("has_rows", "DELETE FROM {sales}", 0),
    "a key that stands twice": ("unique_keys", "INSERT INTO {sales} SELECT * FROM {sales} LIMIT 1", 1),
    "a value that is missing": (
        "complete_rows",
        "UPDATE {sales} SET amount = NULL WHERE rowid IN (SELECT min(rowid) FROM {sales})",
        1,
    ),
    "one of three stores in the newest week": (
        "coverage",
        "DELETE FROM {sales} WHERE t = {last} AND store <> 1",
        1 / 3,
    ),
    "few rows in the newest week": (
        "usual_rows",
        "DELETE FROM {sales} WHERE t = {last} AND store <> 1",
        1 / 3,
    ),
    "a lone row ahead": (
        "no_rows_ahead",
        "INSERT INTO {sales} SELECT * REPLACE (t + 9 AS t) FROM {sales} WHERE t = {last} LIMIT 1",
        1,
    ),
    "a series that stops": (
        "no_series_vanished",
        "DELETE FROM {sales} WHERE t = {last} AND store = 2 AND dept = 7",
        1 / 6,
    ),
    "a week of negative values": (
        "few_negative",
        "UPDATE {sales} SET amount = -abs(amount) WHERE t = {last}",
        None,
    ),
    "a week of zeros": ("few_zeros", "UPDATE {sales} SET amount = 0 WHERE t = {last}", 1),
    "rejected rows": (
        "few_rejected",
        "INSERT INTO cleaned.rejected SELECT 'sales', 'f', 2, 'r', 'm', 'row rejected', '', 1 FROM range(40)",
        0.1,
    ),
    "rows sent again": ("few_superseded", "UPDATE raw.files SET row_count = 500", 0.28),
    "a refused file": ("no_file_refused", "UPDATE raw.files SET status = 'refused' WHERE file_no = 1", 1),
    "points for thousands": (
        "no_grouped_digits",
        "UPDATE raw.files SET delimiter = ';'; UPDATE raw.sales SET amount = '-1.234.567'",
        1,
    ),
    "a store without its attributes": ("attributes_known", "DELETE FROM cleaned.stores WHERE store = 3", 1),
    "no values for the last week ahead": (
        "known_ahead",
        "DELETE FROM cleaned.features WHERE t >= {last} + 8",
        3,
    ),
}


@pytest.mark.parametrize(("rule", "defect", "figure"), DEFECTS.values(), ids=list(DEFECTS))
def test_each_defect_breaks_its_rule(
    con: duckdb.DuckDBPyConnection, rule: str, defect: str, figure: float | None
) -> None:
    panel = walmart_like()
    insert_frames(con, panel, walmart_history(periods=60))
    last = con.execute("SELECT max(t) FROM cleaned.sales").fetchall()[0][0]
    con.execute(defect.format(sales="cleaned.sales", last=last))

    found = judged(con, panel)[rule]

    assert not found.passed
    assert figure is None or found.figure == pytest.approx(figure)
    if found.rule.examples:
        assert found.examples is not None
        assert 0 < len(found.examples) <= quality.EXAMPLES
    assert found.rule.remedy in found.message


def test_examples_name_the_series_that_lack(con: duckdb.DuckDBPyConnection) -> None:
    weeks = mondays(20)
    panel = history(con, {week: range(1, 8) if week != weeks[-1] else [2, 5] for week in weeks})

    found = judged(con, panel)["coverage"]

    assert found.examples is not None
    assert found.examples["shop"].tolist() == [1, 3, 4, 6, 7]


@pytest.mark.parametrize("seed", range(5))
def test_coverage_and_usual_rows_are_what_a_plain_count_gives(
    con: duckdb.DuckDBPyConnection, seed: int
) -> None:
    rng, weeks, alive = np.random.default_rng(seed), mondays(20), 3
    open_in = {week: [shop for shop in range(1, 13) if rng.random() < 0.6] for week in weeks}
    panel = history(con, open_in)

    found = judged(con, panel, alive=alive)

    expected = set().union(*(open_in[week] for week in weeks[-1 - alive : -1]))
    usual = np.median([len(open_in[week]) for week in weeks[-9:-1]])
    assert found["coverage"].figure == pytest.approx(len(expected & {*open_in[weeks[-1]]}) / len(expected))
    assert found["usual_rows"].figure == pytest.approx(len(open_in[weeks[-1]]) / usual)


def test_a_day_is_compared_with_the_same_weekday(con: duckdb.DuckDBPyConnection) -> None:
    panel, days = daily(), pd.date_range("2024-01-01", "2024-03-03")  # a Monday to a Sunday
    rows = [
        (f"shop {shop}", day.strftime("%d/%m/%Y"), 10.0)
        for day in days
        for shop in range(10)
        if day.weekday() != 6 or shop < 3
    ]
    insert_frames(con, panel, {"takings": pd.DataFrame(rows, columns=["shop", "day", "amount"])})

    found = judged(con, panel)

    assert (found["coverage"].figure, found["usual_rows"].figure) == (1.0, 1.0)


def test_lost_rows_are_told_from_the_last_run_that_kept_them(con: duckdb.DuckDBPyConnection) -> None:
    panel = history(con, {week: range(1, 6) for week in mondays(20)})
    first = judged(con, panel, run=1)["kept_rows"]
    con.execute("DELETE FROM cleaned.sales WHERE t < (SELECT min(t) + 4 FROM cleaned.sales)")

    figures = [judged(con, panel, run=run)["kept_rows"] for run in (2, 3)]
    knowingly = judged(con, panel, table_rules.cleaned_rules(panel, 0.5, 0.5), run=4)["kept_rows"]
    afterwards = judged(con, panel, run=5)["kept_rows"]

    assert (first.figure, first.passed) == (None, True)
    assert [(e.figure, e.passed) for e in figures] == [(0.8, False), (0.8, False)]
    assert (knowingly.figure, knowingly.passed) == (0.8, True)
    assert (afterwards.figure, afterwards.passed) == (1.0, True)


def test_closures_knowingly_let_through_hold_up_nothing(con: duckdb.DuckDBPyConnection) -> None:
    weeks = mondays(20)
    panel = history(con, {week: range(1, 11) if week != weeks[-1] else range(1, 4) for week in weeks})

    held = judged(con, panel, run=1)
    let_through = judged(con, panel, table_rules.cleaned_rules(panel, 0.25, 0.9), run=2)

    assert {n for n, e in held.items() if e.rule.blocking and not e.passed} == {"coverage", "usual_rows"}
    assert all(e.passed for e in let_through.values() if e.rule.blocking)
    assert "TURNOVER_MINIMUM_COVERAGE" in held["coverage"].message


@pytest.mark.parametrize(
    ("delimiter", "others"),
    [(",", "1.234"), (";", "1.25"), (";", "12.5")],
    ids=["commas", "cents", "decimals"],
)
def test_decimals_are_no_thousands(con: duckdb.DuckDBPyConnection, delimiter: str, others: str) -> None:
    panel = history(con, {week: [1] for week in mondays(60)})
    con.execute("UPDATE raw.files SET delimiter = ?", [delimiter])
    con.execute(f"UPDATE raw.{panel.series.name} SET {panel.target} = '1.234'")
    con.execute(f"UPDATE raw.{panel.series.name} SET {panel.target} = ? WHERE line = 3", [others])

    assert judged(con, panel)["no_grouped_digits"].figure == 0


def test_a_refused_file_is_named_until_one_of_its_name_lands(con: duckdb.DuckDBPyConnection) -> None:
    panel = history(con, {week: [1] for week in mondays(20)})

    def land(number: int, name: str, status: str) -> None:
        con.execute(
            "INSERT INTO raw.files SELECT * REPLACE (? AS file_no, ? AS name, ? AS status, ? AS digest) "
            "FROM raw.files WHERE file_no = 1",
            [number, name, status, f"digest {number}"],
        )

    land(2, "bad.csv", "refused")
    land(3, "worse.csv", "refused")
    refused = judged(con, panel, run=1)["no_file_refused"]
    land(4, "bad.csv", "accepted")

    corrected = judged(con, panel, run=2)["no_file_refused"]

    assert refused.examples is not None
    assert refused.examples["name"].tolist() == ["worse.csv", "bad.csv"]
    assert corrected.examples is not None
    assert corrected.examples["name"].tolist() == ["worse.csv"]


# Forecasts ---------------------------------------------------------------------------------------

FORECAST_DEFECTS = {
    "none": (set(), ""),
    "a horizon is missing": (
        {"every_live_series"},
        "DELETE FROM forecasts.latest WHERE shop = 1 AND horizon = 8",
    ),
    "a series is missing": ({"every_live_series"}, "DELETE FROM forecasts.latest WHERE shop = 2"),
    "a forecast is empty": (
        {"every_live_series", "ordered_bounds"},
        "UPDATE forecasts.latest SET forecast = NULL WHERE shop = 1 AND horizon = 1",
    ),
    "a forecast is not a number": (
        {"ordered_bounds", "near_last_year"},
        "UPDATE forecasts.latest SET forecast = 'nan' WHERE shop = 1 AND horizon = 1",
    ),
    "bounds are crossed": ({"ordered_bounds"}, "UPDATE forecasts.latest SET upper_95 = upper_80 - 1"),
    "a bound is below zero": ({"ordered_bounds"}, "UPDATE forecasts.latest SET lower_95 = -1"),
    "a third of last year": (
        {"near_last_year"},
        "UPDATE forecasts.latest SET forecast = 3, lower_80 = 2, lower_95 = 1",
    ),
    "three times last year": (
        {"near_last_year"},
        "UPDATE forecasts.latest SET forecast = 30, upper_80 = 31, upper_95 = 32",
    ),
}


@pytest.mark.parametrize(("broken", "defect"), FORECAST_DEFECTS.values(), ids=list(FORECAST_DEFECTS))
def test_forecasts_are_judged(con: duckdb.DuckDBPyConnection, broken: set[str], defect: str) -> None:
    weeks = mondays(60)
    panel = history(con, {week: [1, 2] for week in weeks})
    con.execute(
        "CREATE TABLE forecasts.latest AS "
        "SELECT shop, DATE '2025-02-17' + 7 * CAST(step AS INTEGER) AS week, "
        "step AS horizon, CAST(10 AS DOUBLE) AS forecast, 9.0 AS lower_80, 11.0 AS upper_80, "
        "8.0 AS lower_95, 12.0 AS upper_95 FROM unnest([1, 2]) AS s(shop), range(1, 9) AS h(step)"
    )
    assert weeks[-1] == "2025-02-17"
    con.execute(defect)

    found = judged(con, panel, table_rules.forecast_rules(panel))

    assert {name for name, evaluation in found.items() if not evaluation.passed} == broken


# Findings ----------------------------------------------------------------------------------------


def find(con: duckdb.DuckDBPyConnection, *ids: str) -> None:
    """The findings of a cleaning; the strength is the number in the id."""
    con.execute(
        "CREATE OR REPLACE TABLE cleaned.findings (finding_id VARCHAR, strength DOUBLE, sentence VARCHAR)"
    )
    for name in ids:
        con.execute("INSERT INTO cleaned.findings VALUES (?, ?, ?)", [name, int(name[1:]), f"{name} is odd."])


def test_findings_are_new_once_and_named_the_strongest_first(con: duckdb.DuckDBPyConnection) -> None:
    panel, rules = make_panel(), table_rules.findings_rules()

    def new(run: int, *ids: str) -> list[Any]:
        find(con, *ids)
        found = judged(con, panel, rules, run=run)["no_new_findings"]
        return [] if found.examples is None else found.examples["sentence"].tolist()

    assert new(1, "f1", "f3") == ["f3 is odd.", "f1 is odd."]
    assert new(1, "f1", "f3") == ["f3 is odd.", "f1 is odd."]  # a second attempt of the same run
    assert new(2, "f1", "f3") == []
    assert new(3, "f3", "f2") == ["f2 is odd."]
    assert new(4, "f1") == []
    known = con.execute(f"SELECT finding_id, first_run FROM {quality.KNOWN_FINDINGS} ORDER BY ALL").fetchall()
    assert known == [("f1", "run 1"), ("f2", "run 3"), ("f3", "run 1")]


# Evaluating and keeping --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("least", "most", "figure", "passed", "limit"),
    [
        (1, None, 1.0, True, "at least 1"),
        (1, None, 0.999, False, "at least 1"),
        (None, 0.5, 0.5, True, "at most 0.5"),
        (0.5, 2, 2.1, False, "at least 0.5 and at most 2"),
        (None, 0, float("nan"), False, "at most 0"),
        (None, 0, None, True, "at most 0"),
    ],
)
def test_a_figure_is_held_against_its_bounds(
    least: float | None, most: float | None, figure: float | None, passed: bool, limit: str
) -> None:
    rule = replace(RULE, at_least=least, at_most=most)

    assert Evaluation(rule, figure).passed is passed
    assert rule.limit == limit


def test_the_message_says_what_holds_what_was_found_and_what_to_do() -> None:
    assert Evaluation(RULE, 1234567.0).message == "It holds. Found 1,234,567; allowed is at least 1."
    assert Evaluation(RULE, 0.25).message == "It holds. Found 0.25; allowed is at least 1. Do this."
    assert Evaluation(RULE, None).message == "It holds. There is nothing to compare with yet."


def test_a_rule_whose_table_is_gone_is_broken_and_the_others_go_on(con: duckdb.DuckDBPyConnection) -> None:
    panel = history(con, {week: [1] for week in mondays(20)})
    con.execute("ALTER TABLE cleaned.sales DROP COLUMN t; DROP TABLE cleaned.rejected")

    found = judged(con, panel)

    assert found["schema"].figure == 1
    assert found["has_rows"].passed
    assert not found["unique_keys"].passed
    assert "rejected" in str(found["few_rejected"].problem)
    on_record = con.execute(f"SELECT count(*), count(figure) FROM {quality.CHECKS}").fetchall()[0]
    assert on_record[0] == len(found) > on_record[1]


def test_figures_are_kept_newest_first_and_only_so_many(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "KEPT", 3)
    other = replace(RULE, name="other", figure="SELECT 0")

    for run in range(5):
        judged(con, make_panel(), [replace(RULE, figure=f"SELECT {run}"), other], run=run)

    past = quality.past_figures(con, RULE, 2)
    kept = con.execute(
        f"SELECT check_name, count(*) FROM {quality.CHECKS} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert past["figure"].tolist() == [4.0, 3.0]
    assert past["evaluated"].tolist() == ["2026-01-05 08:04:00", "2026-01-05 08:03:00"]
    assert kept == [("other", 3), ("rule", 3)]


def test_the_record_of_a_check_can_be_published(con: duckdb.DuckDBPyConnection) -> None:
    judged(con, make_panel(), [replace(RULE, figure="SELECT 0")])

    (row,) = con.execute(quality.HISTORY_QUERY).df().to_dict("records")

    assert row["asset"] == "cleaned/sales"
    assert row["landed_version"] == "version"
    assert (row["severity"], row["figure"], row["at_least"], row["passed"]) == ("warning", 0.0, 1.0, False)
