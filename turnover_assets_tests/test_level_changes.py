"""What forecasts carry on: common changes are taken over, chance is not, and nothing is known too early."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core import level_changes, relations
from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.backtest import Entrant
from turnover_assets.core.level_changes import NONE, LevelChanges, measure, since_training, usual_changes
from turnover_assets.core.models.base import Candidate
from turnover_assets.core.what_if.answer import answer
from turnover_assets.core.what_if.question import read_question
from turnover_assets.core.what_if.unchanged import Unchanged
from turnover_assets.core.windows import Window, make_windows
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets.runner import bring_up_to_date
from turnover_assets.serving.champion import Champions
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.api_factories import client_of, publish
from turnover_assets_tests.backtest_factories import (
    LIMITS,
    NOBODY,
    hold,
    make_rows,
    make_window,
    noisy,
    off,
    quick_entrants,
    region_panel,
)
from turnover_assets_tests.factories import (
    Landed,
    copy_home,
    daily,
    daily_history,
    default_history,
    draw_nothing,
    insert_frames,
    memory_warehouse,
    next_week,
    quiet,
)

PANEL = default_panel()
USUAL = 0.1
DEPARTMENTS, STORES = (1, 2, 3), range(12)


def recent(factors: Mapping[int, float], scale: float = 100.0) -> pd.DataFrame:
    """Forecasts of 100 for each store and department, and what was sold: that times a factor."""
    rows = pd.DataFrame(list(product(STORES, DEPARTMENTS, (7, 8))), columns=["store", "department", "t"])
    actual = 100.0 * rows["department"].map(dict(factors)).fillna(1.0)
    return rows.assign(scale=scale, forecast=100.0, actual=actual)


def usual(**members: float) -> pd.DataFrame:
    """Usual changes of the total and of departments."""
    lines = [(TOTAL, "", members.pop("total", USUAL))]
    lines += [("department", name.removeprefix("d"), size) for name, size in members.items()]
    return pd.DataFrame(lines, columns=["level", "member", "usual"])


# How much is taken over --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sold", "least", "most"),
    [(1.05, 1.0, 1.0), (1.1, 1.01, 1.02), (1.5, 1.49, 1.5), (0.5, 0.5, 0.502), (3.0, 2.99, 3.0)],
    ids=["chance", "unusual", "half as much again", "half", "three times"],
)
def test_a_common_change_is_taken_over_and_a_usual_one_is_not(sold: float, least: float, most: float) -> None:
    found = measure(recent(dict.fromkeys(DEPARTMENTS, sold)), usual())

    assert least <= found.factors[TOTAL][""] <= most
    assert found.table["change"].tolist() == pytest.approx([sold])


def test_however_steady_a_sum_was_small_errors_are_not_taken_over() -> None:
    assert measure(recent(dict.fromkeys(DEPARTMENTS, 1.02)), usual(total=0.0)).is_none


def test_what_says_more_about_missing_data_than_about_growth_is_carried_on_within_limits() -> None:
    factors = [measure(recent(dict.fromkeys(DEPARTMENTS, s)), usual()).factors[TOTAL][""] for s in (0.01, 99)]

    assert factors == list(relations.GROWTH_LIMITS)


def test_what_the_total_explains_is_not_taken_over_twice() -> None:
    found = measure(recent(dict.fromkeys(DEPARTMENTS, 2.0)), usual(d1=USUAL, d2=USUAL, d3=USUAL))

    members = pd.DataFrame({"department": [1, 2, 3, 9]})
    np.testing.assert_allclose(found.of(members), 2.0, rtol=0.01)


def test_a_change_of_one_department_is_carried_on_there_alone() -> None:
    found = measure(recent({2: 2.0}), usual(d1=USUAL, d2=USUAL, d3=USUAL, total=0.6))

    factors = found.of(pd.DataFrame({"department": [1, 2, 3]}))
    np.testing.assert_allclose(factors, [1.0, 2.0, 1.0], rtol=0.02)


def test_in_its_low_season_a_sum_has_to_change_by_more() -> None:
    sold = dict.fromkeys(DEPARTMENTS, 1.5)

    high, low = (measure(recent(sold, scale), usual()).factors[TOTAL][""] for scale in (100.0, 1000.0))

    assert high > 1.49
    assert low < 1.001


def test_sums_of_which_nothing_usual_is_known_are_left_alone() -> None:
    found = measure(recent({1: 5.0}), usual(d2=USUAL, total=9.0))

    assert set(found.table["member"]) == {"", "2"}
    assert found.of(pd.DataFrame({"department": [1]})) == pytest.approx(1.0)


@pytest.mark.parametrize("sold", [0.0, -1.0])
def test_where_nothing_was_sold_there_is_no_ratio(sold: float) -> None:
    assert measure(recent(dict.fromkeys(DEPARTMENTS, sold)), usual()).is_none


def test_outcomes_that_are_not_known_count_for_nothing() -> None:
    rows = recent(dict.fromkeys(DEPARTMENTS, 2.0))
    rows.loc[rows["t"] == 8, ["forecast", "actual"]] = [1e9, np.nan]

    assert measure(rows, usual()).factors[TOTAL][""] == pytest.approx(2.0, rel=0.01)
    assert measure(rows[rows["t"] == 8], usual()).is_none


def test_factors_are_the_same_after_they_were_kept() -> None:
    found = measure(recent({2: 2.0}), usual(d2=USUAL))

    again = LevelChanges(level_changes.kept_facts(found.table, model_version=3))

    members = pd.DataFrame({"department": [1.0, 2.0, np.nan]})  # a missing one makes fractions of the others
    np.testing.assert_array_equal(again.of(members), found.of(members))
    assert again.of(members)[1] > 1.5


# Since training ----------------------------------------------------------------------------------


def test_only_forecasts_made_after_the_training_count() -> None:
    rows = make_rows([(s, c) for s in range(1, 13) for c in (96, 97, 98, 99)], 4, noisy, 100)
    rows = rows.where((rows.identity["t"] <= 100).to_numpy())
    members = pd.DataFrame({"series_id": range(1, 13)})
    model = off("half", 0.5)()

    found = {
        until: since_training(PANEL, model, until, rows, members, usual()) for until in (90, 96, 99, 100)
    }

    assert [found[until].table["periods"].tolist() for until in found] == [[4], [4], [1], []]
    assert found[96].factors[TOTAL][""] == pytest.approx(2.0, rel=0.05)
    assert found[100] is NONE


def test_the_champion_competes_as_it_is_used() -> None:
    """What it has missed since its training is carried on, in the windows after that only."""
    window = make_window(112)
    pairs = [(s, c) for s in (1, 2, 3, 4, 5) for c in (108, 109, 110, 111)]
    before = make_rows(pairs, 4, noisy, 112)
    before = before.where((before.identity["t"] <= 112).to_numpy())
    used = replace(window, recent=before, usual=usual())
    champion = Entrant("champion", off("recipe", 2.0), "", off("fitted", 0.5)(), 104)

    plain, corrected = (hold([w], [*quick_entrants(), champion]).windows[0] for w in (window, used))

    np.testing.assert_allclose(corrected.forecasts["champion"], 2.0 * plain.forecasts["champion"], rtol=0.05)
    for name in plain.forecasts.keys() - {"champion"}:
        np.testing.assert_array_equal(corrected.forecasts[name], plain.forecasts[name])


# What is read of the history ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def weekly() -> Iterator[duckdb.DuckDBPyConnection]:
    with memory_warehouse() as con:
        insert_frames(con, PANEL, default_history())
        yield con


def last_of(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> int:
    return int(con.execute(f"SELECT max(t) FROM cleaned.{panel.series.name}").fetchall()[0][0])


def test_the_usual_change_is_that_of_a_slow_computation(
    weekly: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level_changes, "FEWEST_SERIES", 2)
    last = last_of(weekly, PANEL) - 5
    relations.prepare_shared(weekly, PANEL, last)

    found = usual_changes(weekly, PANEL, last).set_index(["level", "member"])["usual"]

    rows = weekly.execute("SELECT store, department, t, turnover_adjusted AS y FROM cleaned.turnover").df()
    rows = rows[rows["t"] <= last]
    assert {(TOTAL, ""), ("department", "73"), ("store", "2")} <= set(found.index)
    for level, member in ((TOTAL, ""), ("department", "73"), ("store", "2")):
        own = rows if level == TOTAL else rows[rows[level] == int(member)]
        values = own.set_index(["store", "department", "t"])["y"].to_dict()
        expected = slow_usual_change(values, last)
        assert found[level, member] == pytest.approx(expected, rel=1e-9)


def slow_usual_change(values: Mapping[tuple[int, int, int], float], last: int) -> float:
    def growth(t: int) -> float:
        both = [
            (values[s, d, k], values[s, d, k - 52])
            for (s, d, k) in values
            if t - 3 <= k <= t and (s, d, k - 52) in values
        ]
        now, before = sum(a for a, _ in both), sum(b for _, b in both)
        return float(np.log(now / before)) if both and now > 0 and before > 0 else np.nan

    known = {t: growth(t) for t in range(last - 115, last + 1)}
    first = min(t for _, _, t in values) + 55  # before that not every one of four weeks has a year before
    changes = [abs(known[t] - known[t - 4]) for t in range(last - 104, last + 1) if t - 4 >= first]
    return float(np.nanquantile(changes, 0.95))


def test_small_sums_and_levels_of_many_members_have_no_usual_change(
    weekly: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = last_of(weekly, PANEL)
    relations.prepare_shared(weekly, PANEL, last)
    monkeypatch.setattr(level_changes, "FEWEST_SERIES", 1)
    monkeypatch.setattr(level_changes, "MOST_MEMBERS", 3)

    found = usual_changes(weekly, PANEL, last)

    assert list(dict.fromkeys(found["level"])) == [TOTAL, "department"]  # five stores, four regions
    monkeypatch.setattr(level_changes, "FEWEST_SERIES", 100)
    assert usual_changes(weekly, PANEL, last).empty


def test_series_that_ended_do_not_make_a_sum_large(
    weekly: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with memory_warehouse() as con:
        insert_frames(con, PANEL, default_history())
        last = last_of(con, PANEL)
        relations.prepare_shared(con, PANEL, last)
        there = con.execute(f"SELECT count(*) FROM grid WHERE t = {last} AND paired IS NOT NULL").fetchall()
        monkeypatch.setattr(level_changes, "FEWEST_SERIES", there[0][0])
        assert TOTAL in set(usual_changes(con, PANEL, last)["level"])
        con.execute(f"DELETE FROM cleaned.turnover WHERE store = 2 AND t > {last - 10}")
        relations.prepare_shared(con, PANEL, last)

        assert usual_changes(con, PANEL, last).empty


def test_forecasts_that_may_be_below_zero_are_held_against_what_came_as_they_are() -> None:
    panel = region_panel(nonnegative=False)
    rows = make_rows([(s, c) for s in range(1, 13) for c in (98, 99)], 4, noisy, 100)
    rows = rows.where((rows.identity["t"] <= 100).to_numpy())
    rows.identity.loc[rows.identity["series_id"] > 8, "actual"] *= -0.5
    members = pd.DataFrame({"series_id": range(1, 13)})
    right = cast("Candidate", SimpleNamespace(predict=lambda rows: rows.actual))

    found = since_training(panel, right, 90, rows, members, usual())

    assert found.table["change"].tolist() == pytest.approx([1.0], rel=0.05)
    assert found.is_none


@pytest.mark.parametrize(
    ("panel", "frames"), [(PANEL, default_history()), (daily(), daily_history())], ids=["weekly", "daily"]
)
def test_nothing_after_the_cutoff_is_known_of_a_model_in_use(
    panel: PanelSpec, frames: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level_changes, "FEWEST_SERIES", 1)
    name, cycle = panel.series.name, panel.frequency.cycle

    def window(*, changed: bool) -> Window:
        with memory_warehouse() as con:
            insert_frames(con, panel, frames)
            cutoff = last_of(con, panel) - panel.horizon
            if changed:
                for column in (panel.target, f"{panel.target}_adjusted"):
                    con.execute(f"UPDATE cleaned.{name} SET {column} = 7 * {column} WHERE t > {cutoff}")
            return next(make_windows(con, panel, [cutoff], LIMITS, NOBODY, used_since=cutoff - 1))

    plain, other = window(changed=False), window(changed=True)

    assert plain.recent is not None
    assert other.recent is not None
    assert plain.usual is not None
    assert other.usual is not None
    identity = plain.recent.identity
    assert set(identity["cutoff"]) == {plain.cutoff - k * cycle for k in range(1, 5)}
    assert identity["t"].max() == plain.cutoff
    assert identity["actual"].notna().all()
    pd.testing.assert_frame_equal(identity, other.recent.identity)
    np.testing.assert_array_equal(plain.recent.x, other.recent.x)
    pd.testing.assert_frame_equal(plain.usual, other.usual)
    assert TOTAL in set(plain.usual["level"])
    thrice = off("thrice", 3.0)()
    found = since_training(panel, thrice, plain.cutoff - 20, plain.recent, plain.series, plain.usual)
    assert found.factors[TOTAL][""] < 0.7


@pytest.mark.parametrize("horizon", [1, 3, 7, 14])
def test_every_day_of_the_last_weeks_is_forecast_however_short_the_horizon(horizon: int) -> None:
    panel = daily().model_copy(update={"horizon": horizon})
    with memory_warehouse() as con:
        insert_frames(con, panel, daily_history())
        last = last_of(con, panel)
        relations.prepare(con, panel, last)

        relations.choose_recent_pairs(con, panel, last, alive=28)

        days = con.execute("SELECT DISTINCT t FROM pairs ORDER BY t").df()["t"]
    first = last - 4 * panel.frequency.cycle + 1
    assert days.iloc[0] - first < horizon
    assert days.tolist() == list(range(days.iloc[0], last + 1))


def test_windows_in_which_nobody_is_in_use_are_spared_the_work(weekly: duckdb.DuckDBPyConnection) -> None:
    cutoff = last_of(weekly, PANEL) - 8

    for used_since in (None, cutoff):
        window = next(make_windows(weekly, PANEL, [cutoff], LIMITS, NOBODY, used_since=used_since))
        assert window.recent is None
        assert window.usual is None


# In a home ---------------------------------------------------------------------------------------

JUMP = 1.6


@pytest.fixture(scope="module")
def jumped(plain: Landed, tmp_path_factory: pytest.TempPathFactory) -> Landed:
    """A home whose stores all sell more from one week on, three weeks later, with the model from before."""
    home = copy_home(plain, tmp_path_factory.mktemp("jumped"))
    turnover = home.retailer.turnover
    newest = turnover[turnover["day_id"] == turnover["day_id"].max()]
    for ahead in (1, 2, 3):
        later = newest.assign(turnover=(newest["turnover"] * JUMP).round(2))
        changed = replace(home.retailer, turnover=later)
        text = next_week(replace(home, retailer=changed), ahead=ahead)
        (home.folder / f"week-{ahead}.csv").write_text(text, "utf-8")
    with pytest.MonkeyPatch.context() as patched:
        draw_nothing(patched)
        bring_up_to_date(home.settings, home.folder, quiet)
    return home


@pytest.mark.slow
def test_forecasts_follow_where_everything_sells_more(plain: Landed, jumped: Landed) -> None:
    before, now = (current(home.settings.published_path) for home in (plain, jumped))

    assert now.facts["model"]["version"] == before.facts["model"]["version"]
    assert (before.read("level_changes")["factor"] == 1.0).all()  # a new model has missed nothing
    changes = now.read("level_changes").set_index(["level", "member"])
    told = changes.loc[(TOTAL, "")]
    assert told["change"] > 1.2
    assert 1.0 < told["factor"] <= told["change"]
    assert told["periods"] == 3
    assert told["cutoff"] == now.read("forecasts")["cutoff"].iloc[0]
    explained = now.read("explanations")
    steps = explained[["reference", *(name for name in explained if name.startswith("effect_"))]]
    np.testing.assert_allclose(steps.sum(axis=1), explained["forecast"], rtol=1e-9, atol=1e-6)
    share = explained["effect_missed"].sum() / explained["forecast"].sum()
    assert share == pytest.approx(1 - 1 / told["factor"], abs=0.02)
    if told["factor"] > 1.1:
        assert explained["sentence"].str.contains("forecasts of recent weeks were too low").any()


@pytest.mark.slow
def test_a_server_asks_the_model_for_what_was_published(jumped: Landed) -> None:
    """Golden rows and what-if questions carry on what the pipeline did."""
    snapshot = current(jumped.settings.published_path)
    champions = Champions(PANEL)

    in_use = champions.take(snapshot)

    try:
        assert champions.problem == ""
        assert in_use.champion is not None
        assert not in_use.champion.changes.is_none
        series = snapshot.read("forecasts")[list(PANEL.keys)].drop_duplicates().to_dict("records")[:2]
        question = read_question(PANEL, in_use.bench.last, {"series": series, "levels": [TOTAL]})
        found = answer(in_use.bench.open, PANEL, in_use.champion, question, {}, Unchanged())
        assert [remark.kind for remark in found.warnings] == ["unknown-training"]
        assert (found.table["difference"] == 0.0).all()
        total = snapshot.read("aggregates").query("level == 'total'").sort_values("horizon")
        np.testing.assert_allclose(found.sums["forecast"], total["forecast"], rtol=1e-6)
    finally:
        in_use.close()
    kept = {name: facts for name, facts in snapshot.facts["tables"].items() if name != "level_changes"}
    other = champions.take(Snapshot(snapshot.folder, {**snapshot.facts, "tables": kept}))
    other.close()
    assert "forecasts of the golden rows" in champions.problem


@pytest.mark.slow
def test_explanations_of_an_earlier_release_are_served_without_what_they_lack(
    jumped: Landed, tmp_path: Path
) -> None:
    home, source = copy_home(jumped, tmp_path), current(jumped.settings.published_path)
    publish(
        home.settings.published_path,
        source,
        {"explanations": source.read("explanations").drop(columns="effect_missed")},
    )

    with client_of(home.settings) as client:
        found = client.get("/v1/explanations", params={"limit": 2})

    assert found.status_code == 200
    assert [row["effect_missed"] for row in found.json()["data"]] == [None, None]
