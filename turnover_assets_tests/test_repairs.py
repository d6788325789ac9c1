"""Repairs as of a cutoff: what windows and scoring rows know of a block that is still going on."""

from collections.abc import Iterator
from datetime import date

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.adjustments import read_adjustments
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.forecasting import forecast_table
from turnover_assets.core.intervals import BOUNDS, Intervals
from turnover_assets.core.ledger import Ledger, parse_ledger
from turnover_assets.core.models import Rows, SeasonalNaive
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits, fill_scoring, read_rows
from turnover_assets.core.synthetic import LAST_WEEK, make_retailer
from turnover_assets.core.windows import Window, make_windows
from turnover_assets.panel import default_panel
from turnover_assets_tests.factories import insert_frames, memory_warehouse

PANEL = default_panel()
LAST = index_of(PANEL, LAST_WEEK)
ONSET = LAST - 23  # since then a department is reported in another unit, and still is
DEPARTMENT = 43
FACTOR = 10.0
NOBODY = Ledger((), ())
LIMITS = RowLimits(share=0.02, max_rows=10_000, alive=4)


def repairs(ledger: Ledger = NOBODY) -> Repairs:
    return Repairs(ledger, strength=4.0, alive=LIMITS.alive)


def frames(since: int | None) -> dict[str, pd.DataFrame]:
    retailer = make_retailer(stores=16, departments=3, weeks=160, seed=5)
    turnover = retailer.turnover.rename(
        columns={
            "day_id": "week",
            "but_num_business_unit": "store",
            "dpt_num_department": "department",
        }
    )
    if since is not None:
        begun = turnover["week"] >= label_of(PANEL, since).isoformat()
        concerned = (turnover["department"] == DEPARTMENT) & begun
        turnover["turnover"] = turnover["turnover"].where(~concerned, FACTOR * turnover["turnover"])
    stores = retailer.stores.rename(columns={old: new for new, old in PANEL.tables["stores"].items()})
    return {"stores": stores, "turnover": turnover}


@pytest.fixture(scope="module")
def inflated() -> Iterator[duckdb.DuckDBPyConnection]:
    """A department in another unit, still going on; findings and adjustments made, feature tables filled."""
    with memory_warehouse() as con:
        insert_frames(con, PANEL, frames(ONSET))
        repairs().write(con, PANEL)
        fill_scoring(con, PANEL, LIMITS)
        yield con


def test_the_block_is_found_and_divided_out_and_what_was_reported_stays(
    inflated: duckdb.DuckDBPyConnection,
) -> None:
    applied = inflated.execute(
        "SELECT selector, since, until, factor FROM cleaned.adjustments WHERE status = 'applied'"
    ).fetchall()
    assert [(row[0], row[2]) for row in applied] == [(f"department {DEPARTMENT}", None)]
    assert applied[0][1] == label_of(PANEL, ONSET)
    assert applied[0][3] == pytest.approx(FACTOR, rel=0.25)
    rows = inflated.execute(
        "SELECT department, t, turnover, turnover_adjusted, adjustment_id FROM cleaned.turnover"
    ).df()
    concerned = (rows["department"] == DEPARTMENT) & (rows["t"] >= ONSET)
    np.testing.assert_allclose(
        rows["turnover_adjusted"].where(~concerned, rows["turnover_adjusted"] * applied[0][3]),
        rows["turnover"],
    )
    assert rows["adjustment_id"].notna().equals(concerned)
    with memory_warehouse() as con:
        insert_frames(con, PANEL, frames(ONSET))
        reported = con.execute("SELECT turnover FROM cleaned.turnover ORDER BY store, department, t").df()
    after = inflated.execute("SELECT turnover FROM cleaned.turnover ORDER BY store, department, t").df()
    pd.testing.assert_frame_equal(after, reported)


def test_rows_that_an_earlier_release_made_are_read(inflated: duckdb.DuckDBPyConnection) -> None:
    now = read_rows(inflated, PANEL, "scoring")
    inflated.execute("CREATE TABLE features.earlier AS SELECT * EXCLUDE season_error FROM features.scoring")

    rows = read_rows(inflated, PANEL, "earlier")

    assert np.isnan(rows.season_error).all()
    pd.testing.assert_frame_equal(rows.identity, now.identity.drop(columns="season_error"))
    np.testing.assert_array_equal(rows.x, now.x)


def test_forecasts_come_back_in_the_scale_in_force(inflated: duckdb.DuckDBPyConnection) -> None:
    rows = read_rows(inflated, PANEL, "scoring")
    series = inflated.execute("SELECT series_id, store, department FROM features.series").df()
    factor = inflated.execute("SELECT factor FROM cleaned.adjustments WHERE status = 'applied'").fetchone()[0]
    in_force = rows.identity.merge(series, on="series_id").groupby("department")["in_force"].unique()
    assert {d: list(values) for d, values in in_force.items()} == {11: [1.0], 27: [1.0], DEPARTMENT: [factor]}

    horizons = pd.Index(range(1, PANEL.horizon + 1), name="horizon")
    spread = dict(zip(BOUNDS, (-0.1, 0.1, -0.2, 0.2), strict=True))
    intervals = Intervals(pd.DataFrame(spread, index=horizons))
    fitted = SeasonalNaive().fit(rows, seed=1, threads=1)
    table = forecast_table(PANEL, fitted, intervals, rows, series)

    last_year = inflated.execute(
        "SELECT store, department, t + 52 AS t, turnover AS year_ago FROM cleaned.turnover"
    ).df()
    table["t"] = [index_of(PANEL, week) for week in table["week"]]
    both = table.merge(last_year, on=["store", "department", "t"])
    expected = both["year_ago"].clip(lower=0) * np.where(both["department"] == DEPARTMENT, factor, 1.0)
    np.testing.assert_allclose(both["forecast"], expected, rtol=1e-5, atol=1e-3)
    width = both["upper_80"] - both["lower_80"]
    assert (width[both["department"] == DEPARTMENT] > 0).all()
    assert (both["lower_95"] <= both["forecast"]).all()
    assert (both["forecast"] <= both["upper_95"]).all()


def window_of(con: duckdb.DuckDBPyConnection, dense: int = 1) -> Window:
    """The window one horizon before the newest period."""
    return next(make_windows(con, PANEL, [LAST - PANEL.horizon], LIMITS, repairs(), dense))


def test_a_window_knows_what_its_cutoff_knew(inflated: duckdb.DuckDBPyConnection) -> None:
    window = window_of(inflated)

    scored = window.scoring
    cutoff = LAST - PANEL.horizon
    assert set(scored.identity["cutoff"]) == {cutoff}
    then = [a for a in repairs().as_of(inflated, PANEL, cutoff) if a.status == "applied"]
    now = read_adjustments(PANEL, inflated.execute("SELECT * FROM cleaned.adjustments").df())
    assert [a.where for a in then] == [{"department": DEPARTMENT}]
    assert then[0].factor != next(a.factor for a in now if a.status == "applied")
    concerned = scored.identity["series_id"].isin(
        window.series.loc[window.series["department"] == DEPARTMENT, "series_id"]
    )
    assert set(scored.in_force[concerned]) == {then[0].factor}
    assert set(scored.in_force[~concerned]) == {1.0}
    np.testing.assert_allclose(scored.actual * scored.in_force, scored.identity["reported"].to_numpy())
    assert window.training.identity["t"].max() <= cutoff


def test_what_a_window_is_scored_against_is_what_was_reported(inflated: duckdb.DuckDBPyConnection) -> None:
    reported = inflated.execute("SELECT store, department, t, turnover FROM cleaned.turnover").df()

    window = window_of(inflated)

    rows = window.scoring.identity.merge(window.series, on="series_id").merge(
        reported, on=["store", "department", "t"], how="left", validate="one_to_one"
    )
    pd.testing.assert_series_equal(rows["reported"], rows["turnover"], check_names=False)


def until(rows: Rows, cutoff: int) -> Rows:
    """The rows of cutoffs up to one."""
    return rows.where((rows.identity["cutoff"] <= cutoff).to_numpy())


@pytest.mark.parametrize("later", [0, 3], ids=["own cutoff", "dense"])
def test_nothing_after_a_cutoff_reaches_its_rows(inflated: duckdb.DuckDBPyConnection, later: int) -> None:
    """Every value after the cutoff, or one after it, is replaced: only outcomes later than that change."""
    changed_after = LAST - PANEL.horizon + later
    data = frames(ONSET)
    concerned = data["turnover"]["week"] > label_of(PANEL, changed_after).isoformat()
    data["turnover"].loc[concerned, "turnover"] = 77.0

    was = window_of(inflated, dense=PANEL.horizon)
    with memory_warehouse() as con:
        insert_frames(con, PANEL, data)
        changed = window_of(con, dense=PANEL.horizon)

    known = ["series_id", "cutoff", "horizon", "t", "scale", "in_force"]
    before, after = until(was.scoring, changed_after), until(changed.scoring, changed_after)
    assert before.identity["cutoff"].max() == changed_after
    pd.testing.assert_frame_equal(before.identity[known], after.identity[known])
    np.testing.assert_array_equal(before.x, after.x)
    early = before.identity["t"] <= changed_after
    reported, replaced = before.identity["reported"], after.identity["reported"]
    pd.testing.assert_series_equal(reported[early], replaced[early])
    assert (replaced[~early].dropna() == 77.0).all()
    assert not (reported[~early] == 77.0).any()
    pd.testing.assert_frame_equal(was.training.identity, changed.training.identity)
    np.testing.assert_array_equal(was.training.x, changed.training.x)
    pd.testing.assert_frame_equal(was.series, changed.series)


def test_a_block_that_began_a_week_ago_is_not_known_yet(inflated: duckdb.DuckDBPyConnection) -> None:
    found = repairs().as_of(inflated, PANEL, ONSET)

    assert not [a for a in found if a.status == "applied"]


@pytest.mark.parametrize(("strength", "statuses"), [(4.0, []), (1.0, ["applied"])])
def test_a_block_of_a_single_series_is_looked_for_at_a_past_cutoff_only_where_it_would_apply(
    strength: float, statuses: list[str]
) -> None:
    data = frames(None)
    turnover = data["turnover"]
    begun = turnover["week"] >= label_of(PANEL, ONSET).isoformat()
    store = turnover["store"].min()
    concerned = (turnover["store"] == store) & (turnover["department"] == DEPARTMENT) & begun
    turnover["turnover"] = turnover["turnover"].where(~concerned, FACTOR * turnover["turnover"])

    with memory_warehouse() as con:
        insert_frames(con, PANEL, data)
        found = Repairs(NOBODY, strength, LIMITS.alive).as_of(con, PANEL, LAST)

    where = {"store": store, "department": DEPARTMENT}
    assert [a.status for a in found if a.kind == "block" and a.where == where] == statuses


def test_an_entry_made_later_is_not_known_at_a_past_cutoff(inflated: duckdb.DuckDBPyConnection) -> None:
    made = LAST_WEEK.replace(day=1)
    text = {
        "veto": [
            {
                "where": {"department": DEPARTMENT},
                "since": label_of(PANEL, ONSET),
                "reason": "a new range",
                "who": "m.rossi",
                "when": made,
            }
        ]
    }
    ledger = parse_ledger(text, PANEL, "ledger", date(2030, 1, 1))
    before, after = index_of(PANEL, date(2024, 5, 25)), LAST

    statuses = {
        cutoff: [a.status for a in repairs(ledger).as_of(inflated, PANEL, cutoff) if len(a.where) == 1]
        for cutoff in (before, after)
    }

    assert statuses == {before: ["applied"], after: ["vetoed"]}
