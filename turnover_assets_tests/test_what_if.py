"""What-if questions, held against a pipeline that runs on changed files."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.core.calendar import label_of
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.models import Rows
from turnover_assets.core.models.naive import SeasonalNaive
from turnover_assets.core.what_if import answer as answers
from turnover_assets.core.what_if.answer import Answer, answer
from turnover_assets.core.what_if.question import read_question
from turnover_assets.core.what_if.sums import BASELINE
from turnover_assets.core.what_if.unchanged import Unchanged
from turnover_assets.errors import QuestionError
from turnover_assets_tests.factories import (
    daily,
    daily_history,
    default_history,
    default_panel,
    walmart_history,
    walmart_like,
)
from turnover_assets_tests.what_if_factories import Published, publish_panel

PANELS = {
    "weeks by their first day": (default_panel, default_history),
    "weeks by their last day, with values known ahead": (walmart_like, walmart_history),
    "days": (daily, daily_history),
}
FIGURES = ["forecast", *BOUNDS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Each panel, published once when it is first asked for."""
    found: dict[str, Published] = {}

    def get(name: str) -> Published:
        if name not in found:
            panel, history = PANELS[name]
            found[name] = publish_panel(tmp_path_factory.mktemp("panel"), panel(), history())
        return found[name]

    yield get
    for published in found.values():
        published.bench.close()


@pytest.fixture(scope="module")
def weeks(made: Any) -> Published:
    return made("weeks by their first day")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def walmart(made: Any) -> Published:
    return made("weeks by their last day, with values known ahead")  # type: ignore[no-any-return]


def ranges(published: Published) -> dict[str, tuple[float, float]]:
    table = published.snapshot.read("feature_ranges")
    return {row.feature: (float(row.low), float(row.high)) for row in table.itertuples()}


def ask(published: Published, **asked: Any) -> Answer:
    panel, bench = published.panel, published.bench
    question = read_question(panel, bench.last, asked)
    return answer(bench.open, panel, published.champion, question, ranges(published), Unchanged())


def series_of(published: Published, count: int | None = None) -> list[dict[str, Any]]:
    keys = published.forecasts[list(published.panel.keys)].drop_duplicates()
    return [dict(row) for row in keys.iloc[:count].to_dict("records")]  # type: ignore[misc]


def kinds(found: Answer) -> list[str]:
    return [remark.kind for remark in found.warnings]


def assert_forecasts(found: Answer, expected: pd.DataFrame, published: Published) -> None:
    """The forecasts of an answer are those, to the last digits."""
    on = [*published.panel.keys, "horizon"]
    both = found.table.merge(expected, on=on, suffixes=("", "_expected"), validate="one_to_one")
    assert len(both) == len(found.table) > 0
    for name in FIGURES:
        np.testing.assert_allclose(both[name], both[f"{name}_expected"], rtol=1e-9, atol=1e-9)


def scaled(published: Published, series: dict[str, Any], factor: float, periods: int) -> pd.DataFrame:
    """What would have landed, had the newest periods of a series been so many times what they were."""
    panel = published.panel
    frame = published.frames[panel.series.name].copy()
    label = pd.to_datetime(frame[panel.time], format=panel.series.time.format).dt.date
    since = label_of(panel, published.bench.last - periods)
    hit = (label > since) & (frame[list(panel.keys)] == pd.Series(series)).all(axis=1)
    assert hit.any()
    frame.loc[hit, panel.target] *= factor
    return frame


# Without and with changes, against the pipeline --------------------------------------------------


@pytest.mark.parametrize("name", PANELS)
def test_without_a_change_the_answer_is_what_was_published(made: Any, name: str) -> None:
    published = made(name)

    found = ask(published, series=series_of(published))

    assert len(found.table) == len(published.forecasts)
    assert_forecasts(found, published.forecasts, published)
    assert (found.table["baseline"] == found.table["forecast"]).all()
    assert (found.table["difference"] == 0.0).all()
    assert (found.changes, found.warnings) == ((), ())


@pytest.mark.parametrize("name", PANELS)
def test_one_series_is_forecast_as_among_all(made: Any, name: str) -> None:
    published = made(name)

    for series in series_of(published):
        assert_forecasts(ask(published, series=[series]), published.forecasts, published)


@pytest.mark.parametrize("name", PANELS)
def test_another_history_is_forecast_as_if_it_had_landed(made: Any, name: str) -> None:
    published = made(name)
    panel, series = published.panel, series_of(published)[1]

    found = ask(published, series=[series], history={"factor": 1.7, "periods": 5})

    frames = {**published.frames, panel.series.name: scaled(published, series, factor=1.7, periods=5)}
    assert_forecasts(found, published.forecast_of(frames), published)
    assert (found.table["difference"] != 0.0).any()


@pytest.mark.parametrize("value", [75.0, None], ids=["a value", "not known"])
def test_other_plans_are_forecast_as_if_they_had_landed(walmart: Published, value: float | None) -> None:
    weeks = [label_of(walmart.panel, walmart.bench.last + h) for h in (2, 3)]
    frame = walmart.frames["features"].copy()
    hit = frame["week"].isin([str(week) for week in weeks]) & (frame["store"] == 2)
    frame.loc[hit, "temperature"] = value

    found = ask(
        walmart,
        series=[{"store": 2}],
        covariates=[{"values": {"temperature": value}, "periods": weeks}],
    )

    assert hit.sum() == 2
    assert_forecasts(found, walmart.forecast_of({**walmart.frames, "features": frame}), walmart)
    touched = found.table["week"].isin(weeks)
    assert (found.table.loc[~touched, "difference"] == 0.0).all()
    assert found.changes == (
        f"temperature is {'not known' if value is None else value} for 2 weeks, {weeks[0]} to {weeks[1]}.",
    )


def test_plans_that_had_not_landed_at_all_can_be_asked_for(walmart: Published, tmp_path: Path) -> None:
    last = str(label_of(walmart.panel, walmart.bench.last))
    short = walmart.frames["features"]
    frames = {**walmart.frames, "features": short[short["week"] <= last]}
    without = publish_panel(tmp_path, walmart.panel, frames)
    week = label_of(walmart.panel, without.bench.last + 1)
    row = {"store": 1, "week": str(week), "temperature": 40.0, "is_holiday": True}
    planned = pd.concat([frames["features"], pd.DataFrame([row])], ignore_index=True)

    values = {"temperature": 40.0, "is_holiday": True}
    found = ask(without, series=[{"store": 1}], covariates=[{"values": values, "periods": [week]}])

    assert_forecasts(found, without.forecast_of({**frames, "features": planned}), without)
    without.bench.close()


@pytest.mark.parametrize("name", PANELS)
def test_sums_are_forecast_as_if_the_change_had_landed(made: Any, name: str) -> None:
    published = made(name)
    panel, series = published.panel, series_of(published)[1]
    levels = [*panel.level_names, "total"]

    found = ask(published, series=[series], history={"factor": 1.7, "periods": 5}, levels=levels).sums

    frames = {**published.frames, panel.series.name: scaled(published, series, factor=1.7, periods=5)}
    for figures, expected in (
        (FIGURES, published.sums_of(frames)),
        (BASELINE, published.sums_of(published.frames)),
    ):
        expected = expected.rename(columns=dict(zip(FIGURES, figures, strict=True)))
        both = found.merge(expected, on=["level", "member", "horizon"], suffixes=("", "_expected"))
        assert len(both) == len(found) == panel.horizon * len(levels)
        for figure in figures:
            np.testing.assert_allclose(both[figure], both[f"{figure}_expected"], rtol=1e-9, atol=1e-9)
        assert (both["parts"] == both["parts_expected"]).all()
    assert found["upper_80"].gt(found["forecast"]).all()
    assert (found["difference"] != 0.0).any()


def test_sums_reach_the_members_that_a_question_does_and_no_others(weeks: Published) -> None:
    first, other = weeks.forecasts["department"].unique()[:2]

    found = ask(weeks, series=[{"department": int(first)}], levels=["department"])

    assert set(found.sums["member"]) == {str(first)} != {str(other)}
    assert set(found.sums["level"]) == {"department"}
    assert (found.sums["difference"] == 0.0).all()
    assert ask(weeks, series=[{"department": int(first)}]).sums.empty


def test_sums_without_a_change_are_those_of_their_series(weeks: Published) -> None:
    found = ask(weeks, series=series_of(weeks, 1), levels=["total", "total"])

    whole = weeks.forecasts.groupby("horizon")[["forecast"]].sum()
    np.testing.assert_allclose(found.sums["forecast"], whole["forecast"])
    np.testing.assert_allclose(found.sums["baseline"], whole["forecast"])
    assert len(found.table) == 8
    assert (found.sums["parts"] == len(series_of(weeks))).all()


def test_a_newcomer_adds_to_the_sums_it_belongs_to(weeks: Published) -> None:
    new = {"keys": {"store": 99, "department": 73}, "attributes": {"region": 3}, "level": 150.0}

    found = ask(weeks, new=[new], levels=["region", "total"])

    before = ask(weeks, series=series_of(weeks), levels=["region", "total"]).sums
    own = found.table.set_index("horizon")["forecast"]
    assert set(found.sums.loc[found.sums["level"] == "region", "member"]) == {"3"}
    both = found.sums.merge(before, on=["level", "member", "horizon"], suffixes=("", "_before"))
    assert len(both) == len(found.sums) == 16
    np.testing.assert_allclose(both["baseline"], both["forecast_before"])
    assert (both["parts"] == both["parts_before"] + 1).all()
    # What it adds is its own, and what other series are moved by higher sums of their levels.
    assert ((both["difference"] - both["horizon"].map(own)).abs() < 0.2 * both["baseline"]).all()


def test_a_member_that_is_new_has_no_baseline(weeks: Published) -> None:
    new = {"keys": {"store": 99, "department": 999}, "attributes": {"region": 3}, "like": {"store": 2}}

    found = ask(weeks, new=[new], levels=["department"]).sums

    assert set(found["member"]) == {"999"}
    assert found[["baseline", "baseline_upper_95", "difference"]].isna().all(axis=None)
    assert (found["parts"] == 1).all()
    assert found["forecast"].gt(0).all()


def test_questions_leave_nothing_behind(weeks: Published) -> None:
    series = series_of(weeks, 1)

    ask(weeks, series=series, history={"factor": 3.0, "periods": 20})
    ask(weeks, new=[{"keys": {"store": 99}, "like": {"store": 2}}])

    assert_forecasts(ask(weeks, series=series), weeks.forecasts, weeks)
    with weeks.bench.open() as overlay:
        catalogs = overlay.con.execute("SELECT database_name FROM duckdb_databases()").fetchall()
    assert sum(name.startswith("question_") for (name,) in catalogs) == 1


@settings(max_examples=8)
@given(
    factor=st.floats(0.1, 5.0),
    periods=st.integers(1, 200),
    chosen=st.sets(st.integers(0, 9), min_size=1, max_size=4),
    horizons=st.sets(st.integers(1, 8), min_size=1),
)
def test_parts_of_a_question_are_parts_of_the_answer(
    weeks: Published, factor: float, periods: int, chosen: set[int], horizons: set[int]
) -> None:
    every = series_of(weeks)
    series = [every[i % len(every)] for i in chosen]
    history = {"factor": factor, "periods": periods}
    labels = [label_of(weeks.panel, weeks.bench.last + h) for h in horizons]

    whole = ask(weeks, series=series, history=history).table
    part = ask(weeks, series=series[::-1] + series[:1], history=history, periods=labels).table

    expected = whole[whole["horizon"].isin(horizons)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected)
    np.testing.assert_allclose(
        part["forecast"] - part["baseline"], part["difference"], atol=1e-6 * part["baseline"].max()
    )


# What is said beside the figures -----------------------------------------------------------------


def test_a_model_that_uses_no_plans_says_so(walmart: Published, tmp_path: Path) -> None:
    naive = publish_panel(tmp_path, walmart.panel, walmart.frames, lambda rows: SeasonalNaive())

    found = ask(naive, series=[{"store": 1}], covariates=[{"values": {"temperature": 99.0}}])

    assert kinds(found) == ["not-used", "no-effect"]
    assert (
        "The champion (version 1, seasonal_naive) does not use temperature at all" in found.warnings[0].text
    )
    assert (found.table["difference"] == 0.0).all()
    naive.bench.close()


def test_a_value_that_training_has_not_seen_is_told_with_what_it_has(walmart: Published) -> None:
    seen = walmart.frames["features"]["temperature"]

    inside = ask(
        walmart, series=[{"store": 1}], covariates=[{"values": {"temperature": float(seen.median())}}]
    )
    beyond = ask(walmart, series=[{"store": 1}], covariates=[{"values": {"temperature": 500.0}}])

    assert "outside-training" not in kinds(inside)
    told = [remark for remark in beyond.warnings if remark.kind == "outside-training"]
    assert [remark.about for remark in told] == ["temperature"]
    assert "would be 500; training has seen" in told[0].text
    low, high = ranges(walmart)["known_temperature"]
    assert np.float32(seen.min()) <= low < high <= np.float32(seen.max())
    assert f"{low:g} to {high:g}" in told[0].text


def test_a_level_that_training_has_not_seen_is_told(weeks: Published) -> None:
    found = ask(weeks, series=series_of(weeks, 1), history={"factor": 90.0, "periods": 2})

    assert {"lag_0", "lag_1"} <= {r.about for r in found.warnings if r.kind == "outside-training"}


def test_a_size_that_training_has_not_seen_is_told_in_units_of_the_target(weeks: Published) -> None:
    new = {"keys": {"store": 99, "department": 73}, "attributes": {"region": 3}, "level": 1e6}

    (told,) = (r.text for r in ask(weeks, new=[new]).warnings if r.about == "log_scale")

    assert told.startswith("size of the series would be ")
    assert 5e5 < float(told.split(" would be ")[1].split(";")[0]) < 2e6
    assert "own scale" not in told


def test_a_change_to_what_is_planned_anyway_has_no_effect(walmart: Published) -> None:
    found = ask(walmart, series=[{"store": 1}], history={"factor": 1.0, "periods": 5})

    assert kinds(found) == ["no-effect"]


def test_what_training_has_seen_may_not_be_known(weeks: Published) -> None:
    question = read_question(weeks.panel, weeks.bench.last, {"series": series_of(weeks, 1)})

    found = answer(weeks.bench.open, weeks.panel, weeks.champion, question, {}, Unchanged())

    assert kinds(found) == ["unknown-training"]


def test_what_questions_compare_with_is_forecast_once(
    weeks: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"series": series_of(weeks, 1), "history": {"factor": 1.5, "periods": 2}, "levels": ["total"]}
    question = read_question(weeks.panel, weeks.bench.last, asked)
    forecast, made = type(weeks.champion).forecast, list[int]()

    def counted(self: Any, rows: Rows, series: pd.DataFrame) -> pd.DataFrame:
        made.append(len(series))
        return forecast(self, rows, series)

    monkeypatch.setattr(type(weeks.champion), "forecast", counted)
    kept = Unchanged()
    found = [
        answer(weeks.bench.open, weeks.panel, weeks.champion, question, ranges(weeks), kept) for _ in range(2)
    ]

    assert made == [len(series_of(weeks))] * 3
    pd.testing.assert_frame_equal(found[0].table, found[1].table, check_exact=True)
    pd.testing.assert_frame_equal(found[0].sums, found[1].sums, check_exact=True)


def test_what_was_asked_for_longest_ago_is_forgotten_first() -> None:
    kept, made = Unchanged(most_rows=25), list[int]()

    def asked(store: int, rows: int = 10) -> int:
        def make() -> Any:
            made.append(store)
            return pd.DataFrame({"forecast": [float(store)] * rows}), None, None

        return int(kept.of(pd.DataFrame({"store": [store]}), make)[0]["forecast"].iloc[0])

    assert [asked(store) for store in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert made == [1, 2, 3, 2]  # 2 was forgotten for 3, 1 was not
    assert [asked(4, rows=26), asked(4, rows=26), asked(1)] == [4, 4, 1]
    assert made == [1, 2, 3, 2, 4, 4]  # what is larger than everything kept is made each time


def test_a_model_other_than_the_one_that_published_makes_its_own_baseline(
    weeks: Published, tmp_path: Path
) -> None:
    other = publish_panel(tmp_path, weeks.panel, weeks.frames, lambda rows: SeasonalNaive())
    question = read_question(weeks.panel, weeks.bench.last, {"series": series_of(weeks)})

    found = answer(weeks.bench.open, weeks.panel, other.champion, question, ranges(weeks), Unchanged())

    assert kinds(found) == ["baseline-recomputed"]
    assert_forecasts(found, other.forecasts, other)
    assert (found.table["difference"] == 0.0).all()
    assert (found.table["baseline"] == found.table["forecast"]).all()
    other.bench.close()


# Series that there are not yet -------------------------------------------------------------------


def test_a_newcomer_like_one_store_is_forecast_much_as_that_store(weeks: Published) -> None:
    found = ask(weeks, new=[{"keys": {"store": 99}, "like": {"store": 2}}])

    table = found.table.set_index(["department", "horizon"])
    theirs = weeks.forecasts.query("store == 2").set_index(["department", "horizon"])
    assert found.table["is_new"].all()
    assert found.table["baseline"].isna().all()
    assert sorted(set(found.table["department"])) == sorted(set(theirs.index.get_level_values(0)))
    ratio = table["forecast"].sum() / theirs["forecast"].sum()
    assert 0.7 < ratio < 1.4
    assert (
        table[["lower_95", "lower_80", "forecast", "upper_80", "upper_95"]].diff(axis=1).iloc[:, 1:] >= 0
    ).all(axis=None)


def test_a_newcomer_of_a_given_level_is_forecast_in_proportion_to_it(
    weeks: Published, tmp_path: Path
) -> None:
    naive = publish_panel(tmp_path, weeks.panel, weeks.frames, lambda rows: SeasonalNaive())

    def newcomer(level: float) -> Answer:
        keys = {"store": 99, "department": 73}
        return ask(naive, new=[{"keys": keys, "attributes": {"region": 3}, "level": level}])

    small, large = newcomer(100.0), newcomer(300.0)

    np.testing.assert_allclose(large.table["forecast"], 3 * small.table["forecast"], rtol=1e-6)
    np.testing.assert_allclose(large.table["upper_95"], 3 * small.table["upper_95"], rtol=1e-6)
    assert "level-guessed" not in kinds(small)
    assert small.changes == ("store 99, department 73 is new, with a mean of 100 a week over a year.",)
    naive.bench.close()


def test_the_given_level_of_a_store_is_shared_among_its_departments(weeks: Published) -> None:
    found = ask(weeks, new=[{"keys": {"store": 99}, "attributes": {"region": 3}, "level": 1000.0}])

    assert sum(float(text.split("mean of ")[1].split()[0]) for text in found.changes) == pytest.approx(
        1000.0, rel=1e-4
    )


def test_a_guessed_level_widens_the_bounds_by_how_far_peers_lie_apart(weeks: Published) -> None:
    place = {"keys": {"store": 99, "department": 88}, "attributes": {"region": 3}}

    guessed = ask(weeks, new=[place])
    level = float(guessed.changes[0].split("mean of ")[1].split()[0])
    given_ = ask(weeks, new=[{**place, "level": level}])

    assert "level-guessed" in kinds(guessed)
    np.testing.assert_allclose(guessed.table["forecast"], given_.table["forecast"], rtol=1e-3)
    assert (guessed.table["upper_95"] > given_.table["upper_95"]).all()
    assert (guessed.table["lower_95"] <= given_.table["lower_95"]).all()


def test_a_newcomer_of_a_size_is_forecast_in_proportion_to_it(walmart: Published) -> None:
    def newcomer(size: float) -> float:
        spec = {"keys": {"store": 9, "dept": 1}, "attributes": {"kind": "A", "size": size}, "per": "size"}
        found = ask(walmart, new=[spec])
        return float(found.changes[0].split("mean of ")[1].split()[0])

    assert newcomer(200_000.0) == pytest.approx(2 * newcomer(100_000.0), rel=1e-4)


def test_what_is_known_ahead_for_a_newcomer_can_be_given(walmart: Published) -> None:
    spec = {"keys": {"store": 9, "dept": 1}, "attributes": {"kind": "A"}, "like": {"store": 1}}

    usual = ask(walmart, new=[spec])
    planned = ask(walmart, new=[spec], covariates=[{"values": {"temperature": 80.0, "is_holiday": True}}])

    assert (usual.table["forecast"] != planned.table["forecast"]).any()


def test_old_and_new_series_are_answered_together(weeks: Published) -> None:
    found = ask(weeks, series=[{"store": 3}], new=[{"keys": {"store": 99}, "like": {"store": 3}}])

    both = found.table.groupby("is_new")
    assert set(both.groups) == {True, False}
    assert both.get_group(False)["baseline"].notna().all()
    assert "new-series" in kinds(found)


def test_attributes_that_nobody_gave_are_told(weeks: Published) -> None:
    found = ask(weeks, new=[{"keys": {"store": 99, "department": 73}, "attributes": {"region": 3}}])

    told = [remark.text for remark in found.warnings if remark.kind == "attribute-unknown"]
    assert len(told) == 1
    assert "latitude" in told[0]


# What cannot be asked ----------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({}, "series", "No series is asked for"),
    "an empty selector": ({"series": [{}]}, "series.0", "empty"),
    "a series that there is not": ({"series": [{"store": 77}]}, "series.0", "store 77"),
    "a series that has ended": ({"series": [{"store": 11, "department": 88}]}, "series.0", "is forecast"),
    "an unknown column": ({"series": [{"shop": 1}]}, "series.0.shop", "no 'shop'"),
    "a value of another type": ({"series": [{"store": "two"}]}, "series.0.store", "whole number"),
    "no number": ({"series": [{"latitude": float("nan")}]}, "series.0.latitude", "not a number"),
    "true for a number": ({"series": [{"store": True}]}, "series.0.store", "whole number"),
    "values that no table has": (
        {"series": [{"store": 2}], "covariates": [{"values": {"price": 1.0}}]},
        "covariates.0.values.price",
        "no 'price'",
    ),
    "a period that is not forecast": (
        {"series": [{"store": 2}], "periods": [date(2001, 1, 6)]},
        "periods.0",
        "not among the periods",
    ),
    "no level": ({"series": [{"store": 2}], "levels": ["total", "shop"]}, "levels.1", "no level 'shop'"),
    "a day that is no label": (
        {"series": [{"store": 2}], "periods": [date(2017, 6, 5)]},
        "periods.0",
        "no day that labels a period",
    ),
    "a newcomer that there is": ({"new": [{"keys": {"store": 2}}]}, "new.0.keys", "has a history"),
    "a newcomer like nothing": (
        {"new": [{"keys": {"store": 99}, "like": {"store": 77}}]},
        "new.0.like",
        "is like that",
    ),
    "a newcomer of no region": (
        {"new": [{"keys": {"store": 99}}]},
        "new.0.attributes.region",
        "added up by it",
    ),
    "a level per text": (
        {"new": [{"keys": {"store": 99}, "per": "postcode"}]},
        "new.0.per",
        "no numeric attribute",
    ),
    "a level per what is not given": (
        {"new": [{"keys": {"store": 99}, "per": "latitude"}]},
        "new.0.attributes.latitude",
        "level depends on it",
    ),
    "a level per nothing": (
        {"new": [{"keys": {"store": 99}, "per": "latitude", "attributes": {"latitude": 0}}]},
        "new.0.attributes.latitude",
        "in proportion to it",
    ),
    "a level of nothing": (
        {"new": [{"keys": {"store": 99}, "level": -5.0}]},
        "new.0.level",
        "A level of -5 is none",
    ),
    "a newcomer twice": (
        {"new": [{"keys": {"store": 99}, "like": {"store": 2}}] * 2},
        "new",
        "more than once",
    ),
}


@pytest.mark.parametrize(("asked", "field", "told"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_asked_is_refused_by_its_field(
    weeks: Published, asked: dict[str, Any], field: str, told: str
) -> None:
    with pytest.raises(QuestionError, match=told) as caught:
        ask(weeks, **asked)

    assert caught.value.field == field
    assert caught.value.remedy


def test_too_many_series_are_refused(weeks: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_SERIES", 2)
    monkeypatch.setattr(answers, "MOST_NEW", 2)

    with pytest.raises(QuestionError, match="more than 2"):
        ask(weeks, series=series_of(weeks))
    with pytest.raises(QuestionError, match="more than 2"):
        ask(weeks, new=[{"keys": {"store": s}, "like": {"store": 2}} for s in (98, 99)])
